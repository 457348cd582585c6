"""Wrong solutions: what is wrong, a text of the reference, its replacement, words of the diagnosis."""
WRONG = [
    ("no GELU", "linear_forward(a, proj_weight", "linear_forward(h, proj_weight", "GELU is left out"),
    ("no slope", "linear_backward(dh, fc_cache)", "linear_backward(da, fc_cache)", "your dx is without GELU's slope"),
    ("order", "return dx, dfc_weight, dfc_bias, dproj_weight, dproj_bias",
     "return dx, dproj_weight, dproj_bias, dfc_weight, dfc_bias", "dfc_weight must have shape (6, 24): got (24, 6)"),
    ("dout for dx", "return dx, dfc_weight, dfc_bias, dproj_weight, dproj_bias",
     "return dout, dfc_weight, dfc_bias, dproj_weight, dproj_bias", "your dx is dout"),
    ("caches exchanged", "fc_cache, gelu_cache, proj_cache = cache", "proj_cache, gelu_cache, fc_cache = cache",
     "in mlp_backward (da, dproj_weight, dproj_bias = linear_backward(dout, proj_cache))"),
]
