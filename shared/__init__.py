"""What both domains stand on."""
