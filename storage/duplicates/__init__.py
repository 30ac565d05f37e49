"""Near-duplicates: hashes that differ in few bits, the grades of likeness, and groups without chains."""
