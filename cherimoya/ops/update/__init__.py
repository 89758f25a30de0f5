"""What a training step does after its gradients: whether it counts, Muon's update, the average."""
