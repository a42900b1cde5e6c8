"""List open weights, check their bytes, pack and install them."""
