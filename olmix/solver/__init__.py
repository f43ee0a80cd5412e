"""The best mixture under caps: convex objectives, the certified solver, and a search for other laws."""
