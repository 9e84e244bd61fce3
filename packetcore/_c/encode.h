/* `encode`, the twin of that in _codec.py. */

static size_t
count_special(const uint8_t *data, size_t size)
{
    size_t count = 0;
    for (; size >= BLOCK; data += BLOCK, size -= BLOCK) {
        for (uint32_t specials = specials_in(data); specials; specials &= specials - 1) {
            count++;
        }
    }
    while (size--) {
        count += is_special(*data++);
    }
    return count;
}

static inline uint8_t *
escape_byte(uint8_t *out, uint8_t byte)
{
    *out++ = ESCAPE;
    *out++ = (uint8_t)(0xFF - byte);
    return out;
}

static uint8_t *
escape_bytes(uint8_t *out, const uint8_t *data, size_t size)
{
    const uint8_t *end = data + size;
    while (end - data >= BLOCK) {
        uint32_t specials = specials_in(data);
        /* What follows a special byte is written over: there is room for all of a block,
           since what is left takes no less. */
        memcpy(out, data, BLOCK);
        if (specials) {
            size_t plain = plain_bytes(specials);
            data += plain;
            out = escape_byte(out + plain, *data++);
        }
        else {
            data += BLOCK;
            out += BLOCK;
        }
    }
    for (; data < end; data++) {
        if (is_special(*data)) {
            out = escape_byte(out, *data);
        }
        else {
            *out++ = *data;
        }
    }
    return out;
}

static PyObject *
frame_of(const Packet *packet)
{
    PyObject *payload = packet->payload;
    uint16_t id = packet->id, count = packet->count;
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(payload);
    size_t length = (size_t)PyBytes_GET_SIZE(payload);
    const uint8_t header[BLOCK] = { /* looked through as a whole */
        (uint8_t)(id >> 8),      (uint8_t)id,
        packet->type,            (uint8_t)(count >> 8),
        (uint8_t)count,          (uint8_t)(length >> 24),
        (uint8_t)(length >> 16), (uint8_t)(length >> 8),
        (uint8_t)length,
    };
    size_t in_payload = count_special(data, length);
    size_t in_header = count_special(header, BLOCK);
    size_t extra = 2 + HEADER_SIZE + in_header + in_payload;
    if (extra > (size_t)PY_SSIZE_T_MAX - length) {
        return PyErr_NoMemory();
    }
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(length + extra));
    if (frame == NULL) {
        return NULL;
    }
    uint8_t *out = (uint8_t *)PyBytes_AS_STRING(frame);
    *out++ = FLAG;
    if (in_header) {
        out = escape_bytes(out, header, HEADER_SIZE);
    }
    else {
        memcpy(out, header, HEADER_SIZE);
        out += HEADER_SIZE;
    }
    if (in_payload) {
        out = escape_bytes(out, data, length);
    }
    else {
        memcpy(out, data, length);
        out += length;
    }
    *out = FLAG;
    return frame;
}

static PyObject *
encode(PyObject *module, PyObject *packet)
{
    State *state = PyModule_GetState(module);
    if (Py_TYPE(packet) != state->packet) {
        PyErr_Format(PyExc_TypeError, "encode() takes a Packet, not %.200s", Py_TYPE(packet)->tp_name);
        return NULL;
    }
    return frame_of((Packet *)packet);
}
