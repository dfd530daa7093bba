"""Our own HTTP routes, one file a subject. What they do is decided above; here requests are read and answers shaped."""
