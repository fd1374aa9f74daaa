"""An HTTP server that answers as the embedding APIs people know."""
