"""Computation: arrays in, arrays out. Signs, images, AlexNet, heads, scores, report."""
