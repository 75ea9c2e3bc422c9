"""An ensemble as one ONNX graph: uint8 images in, probabilities out.

`members` a network as nodes; `combiners` every combiner, with `ops`, `meta`, `neighbours` and `trees` for what they
share; `merge` all of it in one graph; `check` holds it against PyTorch. Used when a bundle is written: what runs it is
`bundle/session.py`.
"""
