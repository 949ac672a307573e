"""What goes with the extension and is not needed by it: each module here needs an extra of its own."""
