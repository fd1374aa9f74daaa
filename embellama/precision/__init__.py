"""Vectors in fewer components and fewer bits, and back: arrays in, arrays out."""

from embellama.precision.calibration import Calibration
from embellama.precision.codes import Codes, dequantize, quantize, shorten

__all__ = ["Calibration", "Codes", "dequantize", "quantize", "shorten"]
