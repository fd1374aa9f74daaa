"""Encoders of the BERT family on the CPU, by kernels of our own. Importing this loads none."""
