# What the extension offers is what its Python twins do.
from packetcore._codec import encode as encode
from packetcore._decoder import Decoder as Decoder
