"""Networks in integers: the same result on every machine, with any number of threads, compiled or not.

Floating-point sums depend on their order, which libraries choose by processor, shape and thread count. A
codec whose decoder repeats the encoder's predictions cannot bear that: one differing bit selects another
table, and all that follows is garbage. Here every value is an integer that counts 1/4096ths:

* activations are integers within ±2^21 (±512), weights are integers of a scale chosen a layer;
* all are held as float64, since BLAS has no integers and conversions take time. The weights of an output sum
  up to at most 2^27, so that no partial sum exceeds 2^48: every one is exact, in any order, with or without
  fused multiply-add, and rounding the result even undoes an error of several units in the last place;
* everything else is addition, multiplication, rounding and comparison of integers below 2^53, which float64
  does without error, and table look-up. GELU, sigmoid and tanh are tables whose digest is checked when they
  are made.
"""
