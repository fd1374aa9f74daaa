"""What each API's requests and answers look like."""
