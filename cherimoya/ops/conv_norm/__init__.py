"""The dilated depthwise convolution with normalisation as one operation."""
