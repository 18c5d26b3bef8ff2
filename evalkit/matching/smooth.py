from typing import Literal
Bandwidth = float | Literal["pair", "cv"]
KernelName = Literal["epanechnikov"]
def match_smooth(*a, **k): raise NotImplementedError
