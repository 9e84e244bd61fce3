/* `Order`, the twin of that in _order.py: a hash table by id whose places are linked in the order of
   their last refresh. A refresh reads one place, which is half a line of the processor's cache, and
   writes to the two beside it in the order: in a large pool hardly anything else takes time. */

typedef struct {
    uint64_t id; /* 0 where it is free: ids begin with 1 */
    double refreshed;
    PyObject *entry;
    uint32_t before, after; /* in the order */
} Place;

typedef struct {
    PyObject_HEAD
    Place *places;   /* `size` of them, and the ends of the order; NULL before the first entry */
    uint8_t *passed; /* for each bucket, how many ids are in a later one because it was full */
    void *block;     /* in which all that lies */
    uint32_t size;   /* a power of 2 */
    uint32_t used;
    uint64_t last_id;
    double now;
} Order;

enum { BUCKET = 4, LEAST_PLACES = 2 * BUCKET, CACHE_LINE = 64, MANY = UINT8_MAX };
static const uint32_t MOST_PLACES = (uint32_t)1 << 31, NOWHERE = UINT32_MAX;

/* The bucket to look into after this one. Ids count up, so those of sessions that came one after the
   other are neighbours in the table, as they may well be in what is asked for; they collide with those
   alone that came long before and are still there. Steps of an odd number of buckets lead to each. */
static inline uint64_t
next_bucket(uint64_t bucket, uint64_t id)
{
    return bucket + BUCKET * ((id * 0x9E3779B97F4A7C15 >> 32) | 1);
}

static inline uint8_t *
passed_at(const Order *self, uint64_t bucket)
{
    return self->passed + (bucket & (self->size - 1)) / BUCKET;
}

/* Where in a bucket an id is, 0 for a free place. */
INLINE uint32_t
look_into(const Order *self, uint64_t bucket, uint64_t id)
{
    for (uint32_t nth = 0; nth < BUCKET; nth++) {
        uint32_t at = (uint32_t)(bucket ^ nth) & (self->size - 1);
        if (self->places[at].id == id) {
            return at;
        }
    }
    return NOWHERE;
}

static inline uint32_t
find_place(const Order *self, uint64_t id)
{
    uint64_t bucket = id;
    for (uint32_t left = id == 0 ? 0 : self->size / BUCKET; left != 0; left--) {
        uint32_t at = look_into(self, bucket, id);
        if (at != NOWHERE) {
            return at;
        }
        if (*passed_at(self, bucket) == 0) {
            break;
        }
        bucket = next_bucket(bucket, id);
    }
    return NOWHERE;
}

static inline void
unlink_place(Order *self, uint32_t at)
{
    uint32_t before = self->places[at].before, after = self->places[at].after;
    self->places[before].after = after;
    self->places[after].before = before;
}

static inline void
link_last(Order *self, uint32_t at)
{
    uint32_t end = self->size, last = self->places[end].before;
    self->places[at].before = last;
    self->places[at].after = end;
    self->places[last].after = at;
    self->places[end].before = at;
}

/* Find a free place for an id, in a table in which there is one. */
static uint32_t
occupy(Order *self, uint64_t id)
{
    uint64_t bucket = id;
    uint32_t at;
    while ((at = look_into(self, bucket, 0)) == NOWHERE) {
        uint8_t *passed = passed_at(self, bucket);
        *passed = (uint8_t)(*passed + (*passed != MANY)); /* from where it is not counted down either */
        bucket = next_bucket(bucket, id);
    }
    return at;
}

/* Move to a table of another size. Gives whether there was memory for it. Runs nobody's code. */
static bool
resize(Order *self, uint32_t size)
{
    size_t places = (size_t)size + 1, more = CACHE_LINE / sizeof(Place) + 2 + size / BUCKET / sizeof(Place);
    void *block = PyMem_Calloc(places + more, sizeof(Place));
    if (block == NULL) {
        return false;
    }
    Place *old = self->places;
    void *old_block = self->block;
    uint32_t old_size = self->size;
    self->block = block;
    self->places = (Place *)(((uintptr_t)block + CACHE_LINE - 1) & ~(uintptr_t)(CACHE_LINE - 1));
    self->passed = (uint8_t *)(self->places + places);
    self->size = size;
    self->places[size].before = self->places[size].after = size;
    if (old != NULL) {
        /* Not in their order, which leads to and fro through memory: each place is told first where it
           is now, instead of its id, and then those beside it. */
        for (uint32_t at = 0; at < old_size; at++) {
            if (old[at].id != 0) {
                uint32_t now_at = occupy(self, old[at].id);
                self->places[now_at] = old[at];
                old[at].id = now_at;
            }
        }
        old[old_size].id = size;
        for (uint32_t at = 0; at <= old_size; at++) {
            if (old[at].entry != NULL || at == old_size) {
                Place *place = &self->places[old[at].id];
                place->before = (uint32_t)old[old[at].before].id;
                place->after = (uint32_t)old[old[at].after].id;
            }
        }
    }
    PyMem_Free(old_block);
    return true;
}

/* Free a place and hand out its entry. The table shrinks where not a sixth of it is in use. */
static PyObject *
take_out(Order *self, uint32_t at)
{
    Place *place = &self->places[at];
    PyObject *entry = place->entry;
    for (uint64_t bucket = place->id; ((bucket ^ at) & (self->size - 1)) >= BUCKET;
         bucket = next_bucket(bucket, place->id)) {
        uint8_t *passed = passed_at(self, bucket);
        *passed = (uint8_t)(*passed - (*passed != MANY));
    }
    unlink_place(self, at);
    place->id = 0;
    place->entry = NULL;
    self->used--;
    if (self->size > LEAST_PLACES && self->used < self->size / 6) {
        resize(self, self->size / 2); /* without memory for it, it stays */
    }
    return entry;
}

/* What an id is, and what none is for anything else. */
static int
read_id(PyObject *object, uint64_t *id)
{
    *id = 0;
    if (!PyIndex_Check(object)) {
        return 0;
    }
    PyObject *number = PyNumber_Index(object);
    if (number == NULL) {
        return -1;
    }
    int is_large;
    long long value = PyLong_AsLongLongAndOverflow(number, &is_large);
    Py_DECREF(number);
    *id = (uint64_t)value; /* one below 0, or -1 for what is too large, is more than any */
    return 0;
}

static int
read_seconds(PyObject *object, double *seconds)
{
    *seconds = PyFloat_AsDouble(object);
    return *seconds == -1.0 && PyErr_Occurred() ? -1 : 0;
}

static double
advance(Order *self, double now)
{
    if (now > self->now) {
        self->now = now;
    }
    return self->now;
}

/* The two arguments of `refresh`, by place or by name. */
static int
read_named(PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject **given)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    bool is_right = count + named == 2;
    for (Py_ssize_t nth = 0; is_right && nth < 2; nth++) {
        Py_ssize_t index = nth;
        if (nth >= count) {
            PyObject *name = PyTuple_GET_ITEM(names, nth - count);
            index = PyUnicode_CompareWithASCIIString(name, "id") == 0 ? 0 : 1;
            is_right = index == 0 || PyUnicode_CompareWithASCIIString(name, "now") == 0;
        }
        is_right = is_right && given[index] == NULL;
        given[index] = args[nth];
    }
    if (!is_right) {
        PyErr_SetString(PyExc_TypeError, "refresh() takes two arguments, id and now");
    }
    return is_right ? 0 : -1;
}

PyDoc_STRVAR(refresh_doc,
"refresh($self, id, now)\n--\n\n"
"Count `now` as a sign of life. Returns whether there is such a session.");

static PyObject *
order_refresh(Order *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *given[2] = {NULL, NULL};
    if (count != 2 || names != NULL) {
        if (read_named(args, count, names, given) < 0) {
            return NULL;
        }
        args = given;
    }
    uint64_t id;
    double now;
    if (read_id(args[0], &id) < 0 || read_seconds(args[1], &now) < 0) {
        return NULL;
    }
    uint32_t at = find_place(self, id);
    if (at == NOWHERE) {
        Py_RETURN_FALSE;
    }
    self->places[at].refreshed = advance(self, now);
    unlink_place(self, at);
    link_last(self, at);
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(refreshed_doc,
"refreshed($self, id)\n--\n\n"
"When a session was last refreshed; `None` if there is no such session.");

static PyObject *
order_refreshed(Order *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"id", NULL};
    PyObject *object;
    uint64_t id;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:refreshed", names, &object) || read_id(object, &id) < 0) {
        return NULL;
    }
    uint32_t at = find_place(self, id);
    if (at == NOWHERE) {
        Py_RETURN_NONE;
    }
    return PyFloat_FromDouble(self->places[at].refreshed);
}

PyDoc_STRVAR(put_entry_doc,
"_put($self, entry, now, /)\n--\n\n"
"Give an entry the next id, refreshed now.");

static PyObject *
order_put(Order *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "_put() takes two arguments, entry and now");
        return NULL;
    }
    double now;
    PyObject *id = read_seconds(args[1], &now) < 0 ? NULL : PyLong_FromUnsignedLongLong(self->last_id + 1);
    if (id == NULL) {
        return NULL;
    }
    if (self->used >= self->size / 3 * 2) { /* one place of three is to be free */
        uint32_t size = self->size == 0 ? LEAST_PLACES : self->size * 2;
        if (self->size == MOST_PLACES || !resize(self, size)) {
            Py_DECREF(id);
            return PyErr_NoMemory();
        }
    }
    uint32_t at = occupy(self, ++self->last_id);
    Place *place = &self->places[at];
    place->id = self->last_id;
    place->refreshed = advance(self, now);
    place->entry = Py_NewRef(args[0]);
    link_last(self, at);
    self->used++;
    return id;
}

static PyObject *
entry_or_none(const Order *self, uint32_t at)
{
    return Py_NewRef(at == NOWHERE ? Py_None : self->places[at].entry);
}

PyDoc_STRVAR(entry_doc,
"_entry($self, id, /)\n--\n\n"
"The entry with this id; `None` if it is not there.");

static PyObject *
order_entry(Order *self, PyObject *object)
{
    uint64_t id;
    return read_id(object, &id) < 0 ? NULL : entry_or_none(self, find_place(self, id));
}

PyDoc_STRVAR(take_entry_doc,
"_take($self, id, /)\n--\n\n"
"Let an entry go and give it; `None` if it is not there.");

static PyObject *
order_take(Order *self, PyObject *object)
{
    uint64_t id;
    if (read_id(object, &id) < 0) {
        return NULL;
    }
    uint32_t at = find_place(self, id);
    return at == NOWHERE ? Py_NewRef(Py_None) : take_out(self, at);
}

static uint32_t
first_place(const Order *self)
{
    return self->used == 0 ? NOWHERE : self->places[self->size].after;
}

PyDoc_STRVAR(first_doc,
"_first($self, /)\n--\n\n"
"The entry that was refreshed longest ago; `None` if there is none.");

static PyObject *
order_first(Order *self, PyObject *Py_UNUSED(nothing))
{
    return entry_or_none(self, first_place(self));
}

PyDoc_STRVAR(since_doc,
"_since($self, /)\n--\n\n"
"When the first was refreshed; `None` if there is none.");

static PyObject *
order_since(Order *self, PyObject *Py_UNUSED(nothing))
{
    uint32_t at = first_place(self);
    return at == NOWHERE ? Py_NewRef(Py_None) : PyFloat_FromDouble(self->places[at].refreshed);
}

PyDoc_STRVAR(take_silent_doc,
"_take_silent($self, timeout, now, /)\n--\n\n"
"Let the first go and give it, if it was refreshed that long ago; else `None`.");

static PyObject *
order_take_silent(Order *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "_take_silent() takes two arguments, timeout and now");
        return NULL;
    }
    double timeout, now;
    if (read_seconds(args[0], &timeout) < 0 || read_seconds(args[1], &now) < 0) {
        return NULL;
    }
    uint32_t at = first_place(self);
    if (at == NOWHERE || self->places[at].refreshed + timeout > now) {
        Py_RETURN_NONE;
    }
    return take_out(self, at);
}

PyDoc_STRVAR(entries_doc,
"_entries($self, /)\n--\n\n"
"All entries, the first that which was refreshed longest ago.");

static PyObject *
order_entries(Order *self, PyObject *Py_UNUSED(nothing))
{
    for (;;) {
        uint32_t count = self->used;
        PyObject *entries = PyList_New(count); /* may run the garbage collector, and that anything */
        if (entries == NULL) {
            return NULL;
        }
        if (self->used != count) {
            Py_DECREF(entries);
            continue;
        }
        uint32_t at = first_place(self);
        for (uint32_t nth = 0; nth < count; nth++, at = self->places[at].after) {
            PyList_SET_ITEM(entries, nth, Py_NewRef(self->places[at].entry));
        }
        return entries;
    }
}

PyDoc_STRVAR(advance_doc,
"_advance($self, now, /)\n--\n\n"
"Count a time as now. Gives the latest that was counted.");

static PyObject *
order_advance(Order *self, PyObject *object)
{
    double now;
    return read_seconds(object, &now) < 0 ? NULL : PyFloat_FromDouble(advance(self, now));
}

static Py_ssize_t
order_length(Order *self)
{
    return (Py_ssize_t)self->used;
}

static int
order_contains(Order *self, PyObject *object)
{
    uint64_t id;
    return read_id(object, &id) < 0 ? -1 : find_place(self, id) != NOWHERE;
}

static PyObject *
order_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    Order *self = (Order *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->now = -Py_HUGE_VAL;
    }
    return (PyObject *)self;
}

static int
order_traverse(Order *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    for (uint32_t at = 0; at < self->size; at++) {
        Py_VISIT(self->places[at].entry);
    }
    return 0;
}

/* What an entry's end runs finds nothing here. */
static int
order_clear(Order *self)
{
    Place *places = self->places;
    void *block = self->block;
    uint32_t size = self->size;
    self->places = NULL;
    self->passed = NULL;
    self->block = NULL;
    self->size = self->used = 0;
    for (uint32_t at = 0; at < size; at++) {
        Py_XDECREF(places[at].entry);
    }
    PyMem_Free(block);
    return 0;
}

static void
order_dealloc(Order *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, order_dealloc)
    order_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyMethodDef order_methods[] = {
    {"refresh", (PyCFunction)(void (*)(void))order_refresh, METH_FASTCALL | METH_KEYWORDS, refresh_doc},
    {"refreshed", (PyCFunction)(void (*)(void))order_refreshed, METH_VARARGS | METH_KEYWORDS, refreshed_doc},
    {"_put", (PyCFunction)(void (*)(void))order_put, METH_FASTCALL, put_entry_doc},
    {"_entry", (PyCFunction)order_entry, METH_O, entry_doc},
    {"_take", (PyCFunction)order_take, METH_O, take_entry_doc},
    {"_take_silent", (PyCFunction)(void (*)(void))order_take_silent, METH_FASTCALL, take_silent_doc},
    {"_first", (PyCFunction)order_first, METH_NOARGS, first_doc},
    {"_since", (PyCFunction)order_since, METH_NOARGS, since_doc},
    {"_entries", (PyCFunction)order_entries, METH_NOARGS, entries_doc},
    {"_advance", (PyCFunction)order_advance, METH_O, advance_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(order_doc,
"The entries of a pool by id, in the order of their last refresh.");

static PyType_Slot order_slots[] = {
    {Py_tp_doc, (void *)order_doc},
    {Py_tp_new, order_new},
    {Py_sq_length, order_length},
    {Py_sq_contains, order_contains},
    {Py_tp_traverse, order_traverse},
    {Py_tp_clear, order_clear},
    {Py_tp_dealloc, order_dealloc},
    {Py_tp_methods, order_methods},
    {0, NULL},
};

static PyType_Spec order_spec = {
    .name = "packetcore._speedups.Order",
    .basicsize = sizeof(Order),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = order_slots,
};
