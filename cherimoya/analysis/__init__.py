"""What comes after training: reports and plots."""
