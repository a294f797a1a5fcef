"""Films: bytes become pixels, by one way only.

``read`` finds films and tells their type by content, ``raster`` and ``dicom`` decode,
``grayscale`` holds the pure DICOM steps, ``preprocess`` alone makes a network's pixels.
"""
