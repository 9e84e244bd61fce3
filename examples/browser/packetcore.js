// Packets in a browser: the default wire format of packetcore, and a WebSocket that speaks it.
//
//   FE | id u16 | type u8 | count u16 | length u32 | payload[length] | FE    big-endian
//
// Between the flags FE is sent as FD 01 and FD as FD 02; length counts the payload before that.
"use strict";

const FLAG = 0xfe, ESCAPE = 0xfd, HEADER = 9;
const MAX_PAYLOAD = 1 << 20; // what one packet may hold, and so half of what is kept of a broken one

// One packet as one frame, a Uint8Array. The payload is one, or text.
function encode({ id = 0, type = 0, count = 1, payload = "" }) {
  const content = typeof payload === "string" ? new TextEncoder().encode(payload) : payload;
  const body = new Uint8Array(HEADER + content.length);
  const header = new DataView(body.buffer);
  header.setUint16(0, id);
  header.setUint8(2, type);
  header.setUint16(3, count);
  header.setUint32(5, content.length);
  body.set(content, HEADER);
  const escaped = body.reduce((number, byte) => number + (byte === FLAG || byte === ESCAPE), 0);
  const frame = new Uint8Array(body.length + escaped + 2);
  let at = 0;
  frame[at++] = FLAG;
  for (const byte of body) {
    if (byte === FLAG || byte === ESCAPE) {
      frame[at++] = ESCAPE;
      frame[at++] = byte === FLAG ? 1 : 2;
    } else {
      frame[at++] = byte;
    }
  }
  frame[at] = FLAG;
  return frame;
}

// Takes the bytes of one stream, however they are cut, and gives the packets that they hold.
class Decoder {
  constructor(maxPayload = MAX_PAYLOAD) {
    this.maxPayload = maxPayload;
    this.malformed = 0; // runs of bytes between two flags that were no packet
    this.run = new Uint8Array(64); // the one under way, as it comes
    this.size = 0;
    this.isTooLong = false;
  }

  feed(bytes) {
    const packets = [];
    for (const byte of bytes) {
      if (byte !== FLAG) {
        this.keep(byte);
        continue;
      }
      const packet = this.isTooLong ? null : this.packet();
      if (packet) packets.push(packet);
      else if (this.size || this.isTooLong) this.malformed++;
      this.size = 0;
      this.isTooLong = false;
    }
    return packets;
  }

  keep(byte) {
    if (this.isTooLong) return;
    if (this.size === 2 * (this.maxPayload + HEADER)) {
      this.isTooLong = true; // a frame of nothing but escapes is shorter
      return;
    }
    if (this.size === this.run.length) {
      const larger = new Uint8Array(2 * this.size);
      larger.set(this.run);
      this.run = larger;
    }
    this.run[this.size++] = byte;
  }

  packet() {
    const body = new Uint8Array(this.size);
    let size = 0;
    for (let at = 0; at < this.size; at++) {
      let byte = this.run[at];
      if (byte === ESCAPE) {
        byte = { 1: FLAG, 2: ESCAPE }[this.run[++at]];
        if (byte === undefined || at === this.size) return null;
      }
      body[size++] = byte;
    }
    const header = new DataView(body.buffer);
    if (size < HEADER || header.getUint32(5) !== size - HEADER || size - HEADER > this.maxPayload) return null;
    const [id, type, count] = [header.getUint16(0), header.getUint8(2), header.getUint16(3)];
    return { id, type, count, payload: body.slice(HEADER, size) };
  }
}

// A WebSocket that gives packets to `onpacket` and sends them; `socket` is the browser's own, for its events.
class PacketSocket {
  constructor(url, onpacket) {
    this.decoder = new Decoder();
    this.socket = new WebSocket(url, "packetcore");
    this.socket.binaryType = "arraybuffer";
    this.socket.addEventListener("message", (event) => {
      for (const packet of this.decoder.feed(new Uint8Array(event.data))) onpacket(packet);
    });
  }

  send(packet) {
    this.socket.send(encode(packet));
  }

  close() {
    this.socket.close(1000);
  }
}

if (typeof module !== "undefined") module.exports = { encode, Decoder, PacketSocket }; // for tests without a browser
