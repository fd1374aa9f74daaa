"""What the benches of the server share: servers in processes of their own, and clients."""
