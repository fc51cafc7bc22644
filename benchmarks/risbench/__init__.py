"""What risengine is measured against and with: the PyTorch reference, data sets, metrics and reports."""
