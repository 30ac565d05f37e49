/* What stands before and behind a search of list_scan.c, for every processor: queries brought to unit length, and the
   item ids of what was found. In Python each of the two takes as long as the scan of several lists. */

#define SMALLEST 1e-12 /* squared length of a query that is scaled here; shorter ones need a closer look */
#define LONG_WORK (1 << 18) /* bytes from which on other threads may run meanwhile */

/* Scale rows to unit length; 0 where one of them is too short or not finite. */
static int scale_rows(const float *from, int64_t rows, int64_t dim, float *to) {
    for (; rows; rows--, from += dim, to += dim) {
        double sums[8] = {0}, square = 0;
        int64_t i = 0;
        for (; i + 8 <= dim; i += 8)
            for (int j = 0; j < 8; j++) sums[j] += (double)from[i + j] * from[i + j];
        for (; i < dim; i++) square += (double)from[i] * from[i];
        for (int j = 0; j < 8; j++) square += sums[j];
        if (!(square > SMALLEST && square < HUGE_VAL)) return 0; /* NaN is neither */
        double length = sqrt(square);
        for (i = 0; i < dim; i++) to[i] = (float)(from[i] / length);
    }
    return 1;
}

/* unit_rows(vectors, dim, units): fill `units` with float32 `vectors` scaled to unit length, and return whether that
   was possible: not for other types, and not where a row is no direction. */
static PyObject *unit_rows(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *given, *filled;
    long long dim;
    Py_buffer from = {0}, to = {0};
    if (!PyArg_ParseTuple(args, "OLO", &given, &dim, &filled)) return NULL;
    int scaled = 0;
    if (PyObject_GetBuffer(given, &from, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0) {
        PyErr_Clear();
        Py_RETURN_FALSE;
    }
    if (PyObject_GetBuffer(filled, &to, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) == 0) {
        if (dim > 0 && from.len == to.len && from.len % (4 * dim) == 0 && from.format && !strcmp(from.format, "f")) {
            PyThreadState *state = from.len > LONG_WORK ? PyEval_SaveThread() : NULL;
            scaled = scale_rows(from.buf, from.len / (4 * dim), dim, to.buf);
            if (state) PyEval_RestoreThread(state);
        }
        PyBuffer_Release(&to);
    }
    PyBuffer_Release(&from);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(scaled);
}

typedef struct { /* columns of strings, batch by batch: for each its offsets and its UTF-8 bytes */
    Py_ssize_t batches;
    int64_t rows, batch_rows;
    Py_buffer buffers[]; /* offsets and bytes of the first batch, of the second, and so on */
} Strings;

static void free_strings(PyObject *capsule) {
    Strings *strings = PyCapsule_GetPointer(capsule, "strings");
    if (!strings) return;
    for (Py_ssize_t i = 0; i < 2 * strings->batches; i++) PyBuffer_Release(&strings->buffers[i]);
    free(strings);
}

/* open_strings(rows, batch_rows, buffers): strings to read by row; a tuple with the int32 offsets of a batch, then its bytes. */
static PyObject *open_strings(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *given;
    long long rows, batch_rows;
    if (!PyArg_ParseTuple(args, "LLO!", &rows, &batch_rows, &PyTuple_Type, &given)) return NULL;
    Py_ssize_t batches = PyTuple_Size(given) / 2;
    if (rows < 0 || batch_rows < 1 || batches < (rows + batch_rows - 1) / batch_rows) {
        PyErr_SetString(PyExc_ValueError, "these batches do not have so many rows");
        return NULL;
    }
    Strings *strings = calloc(1, sizeof(Strings) + 2 * (size_t)batches * sizeof(Py_buffer));
    if (!strings) return PyErr_NoMemory();
    strings->batches = batches, strings->rows = rows, strings->batch_rows = batch_rows;
    PyObject *capsule = PyCapsule_New(strings, "strings", free_strings);
    if (!capsule) {
        free(strings);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < 2 * batches; i++) {
        Py_buffer *view = &strings->buffers[i];
        int64_t held = batch_rows < rows - i / 2 * batch_rows ? batch_rows : rows - i / 2 * batch_rows;
        if (PyObject_GetBuffer(PyTuple_GetItem(given, i), view, PyBUF_C_CONTIGUOUS) < 0) break;
        if (i % 2 == 0 && view->len < 4 * (held + 1)) {
            PyErr_SetString(PyExc_ValueError, "a batch has fewer offsets than rows");
            break;
        }
    }
    if (!PyErr_Occurred()) return capsule;
    Py_DECREF(capsule);
    return NULL;
}

/* strings_at(strings, rows): a list of the strings of int64 rows; None where one of these is none of its rows. */
static PyObject *strings_at(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *capsule, *given;
    Py_buffer rows = {0};
    if (!PyArg_ParseTuple(args, "OO", &capsule, &given)) return NULL;
    Strings *strings = PyCapsule_GetPointer(capsule, "strings");
    if (!strings || PyObject_GetBuffer(given, &rows, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    Py_ssize_t count = rows.len / 8;
    int known = 1;
    for (Py_ssize_t i = 0; i < count; i++) known &= (uint64_t)((const int64_t *)rows.buf)[i] < (uint64_t)strings->rows;
    PyObject *found = known ? PyList_New(count) : NULL;
    for (Py_ssize_t i = 0; found && i < count; i++) {
        int64_t row = ((const int64_t *)rows.buf)[i];
        const Py_buffer *offsets = &strings->buffers[2 * (row / strings->batch_rows)], *bytes = offsets + 1;
        const int32_t *at = (const int32_t *)offsets->buf + row % strings->batch_rows;
        PyObject *text = NULL;
        if (at[0] < 0 || at[1] < at[0] || at[1] > bytes->len)
            PyErr_SetString(PyExc_ValueError, "a string lies outside its bytes");
        else
            text = PyUnicode_DecodeUTF8((const char *)bytes->buf + at[0], at[1] - at[0], NULL);
        if (!text || PyList_SetItem(found, i, text) < 0) {
            Py_DECREF(found);
            found = NULL;
        }
    }
    PyBuffer_Release(&rows);
    if (found || PyErr_Occurred()) return found;
    Py_RETURN_NONE;
}
