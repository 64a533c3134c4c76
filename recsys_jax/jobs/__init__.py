"""Jobs over files: what may be interrupted at any moment, and goes on where it stopped."""
