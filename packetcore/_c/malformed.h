/* Bytes that are refused: their number, the first of them, and the event that says so. */

typedef struct {
    uint64_t size;
    uint8_t sample[SAMPLE_SIZE];
} Refused;

/* Count bytes, and keep them if they are among the first. */
static void
count_bytes(Refused *refused, const uint8_t *data, size_t size)
{
    if (size && refused->size < SAMPLE_SIZE) {
        size_t room = SAMPLE_SIZE - (size_t)refused->size;
        memcpy(refused->sample + refused->size, data, size < room ? size : room);
    }
    refused->size += size;
}

/* Give a `Malformed` for them and begin anew, first, since the event is made by Python and that
   can run anything, a feed of the same decoder included. */
static int
give_malformed(State *state, PyObject *events, int reason, Refused *refused)
{
    unsigned long long size = refused->size;
    PyObject *sample = PyBytes_FromStringAndSize((char *)refused->sample, size < SAMPLE_SIZE ? (Py_ssize_t)size : SAMPLE_SIZE);
    refused->size = 0;
    if (sample == NULL || load(state) < 0) {
        Py_XDECREF(sample);
        return -1;
    }
    PyObject *event = PyObject_CallFunction(state->events[MALFORMED], "OKO", state->reasons[reason], size, sample);
    Py_DECREF(sample);
    if (event == NULL) {
        return -1;
    }
    int failed = PyList_Append(events, event);
    Py_DECREF(event);
    return failed;
}
