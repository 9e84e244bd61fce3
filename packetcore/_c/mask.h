/* `masked`, the twin of that in _mask.py. */

PyDoc_STRVAR(masked_doc,
"masked($module, data, key, /)\n--\n\n"
"Mask or unmask bytes, as WebSocket does it (RFC 6455, section 5.3).");

static PyObject *
masked_bytes(const uint8_t *data, size_t size, const uint8_t *key)
{
    PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (result == NULL) {
        return NULL;
    }
    uint8_t *out = (uint8_t *)PyBytes_AS_STRING(result);
    uint64_t keys, bytes;
    memcpy(&keys, key, 4);
    memcpy((uint8_t *)&keys + 4, key, 4);
    size_t at = 0;
    for (; at + 8 <= size; at += 8) {
        memcpy(&bytes, data + at, 8);
        bytes ^= keys;
        memcpy(out + at, &bytes, 8);
    }
    for (; at < size; at++) {
        out[at] = data[at] ^ key[at % 4];
    }
    return result;
}

static PyObject *
masked(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "masked() takes two positional arguments, data and key");
        return NULL;
    }
    Py_buffer data, key;
    if (get_bytes(args[0], &data) < 0) {
        return NULL;
    }
    PyObject *result = NULL;
    if (get_bytes(args[1], &key) == 0) {
        if (key.len == 4) {
            result = masked_bytes(bytes_of(&data), (size_t)data.len, key.buf);
        }
        else {
            PyErr_Format(PyExc_ValueError, "a key of %zd bytes: it has 4", key.len);
        }
        PyBuffer_Release(&key);
    }
    PyBuffer_Release(&data);
    return result;
}
