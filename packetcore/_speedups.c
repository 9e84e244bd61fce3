/* The codec in C, and what is done for each chunk and each packet around it: `Packet`, `encode`,
   `Output`, `Decoder`, `Receiver`, `Pump`, `Items`, `Order`, `Latch` and `Sender`, the fast twins of those in the
   modules of these names.

   The Python is the reference: what is a frame, which reason a bad one gets, and where each
   event is given are decided there and only repeated here.

   Nothing is shared between interpreters: what the functions need stands in the module's
   state, and each type is a heap type. Without the GIL a decoder would need a lock of its
   own; such builds are declined in setup.py and run the Python twins.

   The parts are one translation unit, so that the compiler sees all of it. */

#include "_c/common.h"
#include "_c/malformed.h"
#include "_c/packet.h"
#include "_c/scan.h"
#include "_c/encode.h"
#include "_c/output.h"
#include "_c/run.h"
#include "_c/decoder.h"
#include "_c/checks.h"
#include "_c/runs.h"
#include "_c/stuffing.h"
#include "_c/cobs.h"
#include "_c/length_prefix.h"
#include "_c/receiver.h"
#include "_c/pump.h"
#include "_c/items.h"
#include "_c/order.h"
#include "_c/latch.h"
#include "_c/sender.h"
#include "_c/mask.h"

static int
add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (*type == NULL && !PyErr_Occurred()) {
        PyErr_NoMemory(); /* Python 3.11 forgets it for one of its allocations */
    }
    return *type == NULL ? -1 : PyModule_AddType(module, *type);
}

static int
module_exec(PyObject *module)
{
#ifdef USE_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
        __builtin_cpu_supports("bmi2")) {
        escape_wide = escape_wide_avx2;
        read_payload = read_payload_avx2;
        find_flag = find_flag_avx2;
        unescape_any = unescape_two = unescape_avx2;
    }
    if (__builtin_cpu_supports("pclmul")) {
        crc_of_bytes = crc_folded;
    }
#endif
#ifdef USE_AVX512
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi2") &&
        __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")) {
        count_special_long = count_special_avx512;
        escape_bytes_long = escape_bytes_avx512;
        escape_wide = escape_wide_avx512;
        read_payload = read_payload_avx512;
        find_flag = find_flag_avx512;
        unescape_two = unescape_avx512;
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq")) {
        crc_of_bytes = crc_folded_wide;
    }
#endif
    set_up_crcs();
    State *state = PyModule_GetState(module);
    PyObject *names = Py_BuildValue("(ssss)", "id", "payload", "type", "count");
    int failed = names == NULL || add_type(module, &packet_spec, &state->packet) < 0 ||
                 PyObject_SetAttrString((PyObject *)state->packet, "__match_args__", names) < 0;
    Py_XDECREF(names);
    if (failed) {
        return -1;
    }
    state->encode = PyObject_GetAttrString(module, "encode");
    if (state->encode == NULL) {
        return -1;
    }
    state->name_send = PyUnicode_InternFromString("send");
    state->name_write = PyUnicode_InternFromString("write");
    state->name_own_write = PyUnicode_InternFromString("_write");
    state->name_sent_at = PyUnicode_InternFromString("sent_at");
    if (state->name_send == NULL || state->name_write == NULL || state->name_own_write == NULL || state->name_sent_at == NULL ||
        add_type(module, &output_spec, &state->output) < 0 || add_type(module, &decoder_spec, &state->decoder) < 0 ||
        add_type(module, &receiver_spec, &state->receiver) < 0 || add_type(module, &pump_spec, &state->pump) < 0 ||
        add_type(module, &ready_spec, &state->ready) < 0 || add_type(module, &items_spec, &state->items) < 0 ||
        add_type(module, &order_spec, &state->order) < 0 ||
        add_type(module, &latch_spec, &state->latch) < 0 || add_type(module, &sender_spec, &state->sender) < 0 ||
        add_type(module, &stuffing_spec, &state->stuffing) < 0 ||
        add_type(module, &stuffing_decoder_spec, &state->stuffing_decoder) < 0 ||
        add_type(module, &cobs_decoder_spec, &state->cobs_decoder) < 0 ||
        add_type(module, &length_decoder_spec, &state->length_decoder) < 0) {
        return -1;
    }
    return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->packet);
    Py_VISIT(state->output);
    Py_VISIT(state->decoder);
    Py_VISIT(state->receiver);
    Py_VISIT(state->pump);
    Py_VISIT(state->ready);
    Py_VISIT(state->items);
    Py_VISIT(state->order);
    Py_VISIT(state->latch);
    Py_VISIT(state->sender);
    Py_VISIT(state->stuffing);
    Py_VISIT(state->stuffing_decoder);
    Py_VISIT(state->cobs_decoder);
    Py_VISIT(state->length_decoder);
    Py_VISIT(state->encode);
    for (int event = 0; event < EVENTS; event++) {
        Py_VISIT(state->events[event]);
    }
    Py_VISIT(state->open);
    for (int reason = 0; reason < REASONS; reason++) {
        Py_VISIT(state->reasons[reason]);
    }
    return 0;
}

static int
module_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->packet);
    Py_CLEAR(state->output);
    Py_CLEAR(state->decoder);
    Py_CLEAR(state->receiver);
    Py_CLEAR(state->pump);
    Py_CLEAR(state->ready);
    Py_CLEAR(state->items);
    Py_CLEAR(state->order);
    Py_CLEAR(state->latch);
    Py_CLEAR(state->sender);
    Py_CLEAR(state->stuffing);
    Py_CLEAR(state->stuffing_decoder);
    Py_CLEAR(state->cobs_decoder);
    Py_CLEAR(state->length_decoder);
    Py_CLEAR(state->name_send);
    Py_CLEAR(state->name_write);
    Py_CLEAR(state->name_own_write);
    Py_CLEAR(state->name_sent_at);
    Py_CLEAR(state->encode);
    for (int event = 0; event < EVENTS; event++) {
        Py_CLEAR(state->events[event]);
    }
    Py_CLEAR(state->open);
    for (int reason = 0; reason < REASONS; reason++) {
        Py_CLEAR(state->reasons[reason]);
    }
    return 0;
}

static void
module_free(void *module)
{
    module_clear(module);
}

PyDoc_STRVAR(encode_doc,
"encode($module, packet, /)\n--\n\n"
"Give one packet as one frame.");

static PyMethodDef module_methods[] = {
    {"encode", encode, METH_O, encode_doc},
    {"new_packet", new_sound_packet, METH_VARARGS, new_packet_doc},
    {"open_latches", open_latches, METH_O, open_latches_doc},
    {"masked", (PyCFunction)(void (*)(void))masked, METH_FASTCALL, masked_doc},
    {"fcs16", fcs16, METH_O, fcs16_doc},
    {"fcs32", fcs32, METH_O, fcs32_doc},
    {"crc16_modbus", crc16_modbus, METH_O, crc16_modbus_doc},
    {"xor", xor_check, METH_O, xor_doc},
    {"encode_cobs", encode_cobs, METH_O, encode_cobs_doc},
    {"encode_cobsr", encode_cobsr, METH_O, encode_cobsr_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "packetcore._speedups",
    .m_doc = "The codec in C.",
    .m_size = sizeof(State),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&module_def);
}
