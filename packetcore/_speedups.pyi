# What the extension offers is what its Python twins do.
from packetcore._codec import encode as encode
from packetcore._decoder import Decoder as Decoder
from packetcore._items import Items as Items
from packetcore._output import Output as Output
from packetcore._packet import Packet as Packet
from packetcore._packet import new_packet as new_packet
from packetcore._pump import Pump as Pump
from packetcore._receiver import Receiver as Receiver
