"""uvicorn, with the limits that it lacks. The only importer of uvicorn."""
