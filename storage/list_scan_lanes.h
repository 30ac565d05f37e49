/* What list_scan.c does many times, for one width of lanes; read once for each (WIDE: AVX-512, else AVX2). */

#if WIDE
typedef __m512 LANES(Floats);
#define FLOATS 16
#define ZERO _mm512_setzero_ps()
#define ADD(a, b) _mm512_add_ps(a, b)
#define MULTIPLY(a, b) _mm512_mul_ps(a, b)
#define MULTIPLY_ADD(a, b, c) _mm512_fmadd_ps(a, b, c)
#define SPREAD(value) _mm512_set1_ps(value)
#define LOAD(at) _mm512_loadu_ps(at)
#define STORE(at, lanes) _mm512_storeu_ps(at, lanes)
#define LOAD_HALVES(at) _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(at)))
#define FROM_SHORTS(shorts) _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(shorts))
#define LOAD_NUMBERS(at) _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(at)))
#else
typedef __m256 LANES(Floats);
#define FLOATS 8
#define ZERO _mm256_setzero_ps()
#define ADD(a, b) _mm256_add_ps(a, b)
#define MULTIPLY(a, b) _mm256_mul_ps(a, b)
#define MULTIPLY_ADD(a, b, c) _mm256_fmadd_ps(a, b, c)
#define SPREAD(value) _mm256_set1_ps(value)
#define LOAD(at) _mm256_loadu_ps(at)
#define STORE(at, lanes) _mm256_storeu_ps(at, lanes)
#define LOAD_HALVES(at) _mm256_cvtph_ps(_mm_loadu_si128((const void *)(at)))
#define FROM_SHORTS(shorts) _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(shorts)))
#define LOAD_NUMBERS(at) _mm256_castsi128_si256(_mm_cvtepi8_epi16(_mm_loadl_epi64((const void *)(at))))
#endif

TARGET static inline float LANES(sum)(LANES(Floats) lanes) {
#if WIDE
    return _mm512_reduce_add_ps(lanes);
#else
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
#endif
}

/* Take the least of 16 numbers off all of them, and return it and what the largest is then. */
TARGET static inline void LANES(shifted)(LANES(Floats) *entries, float *least, float *span) {
#if WIDE
    *least = _mm512_reduce_min_ps(entries[0]);
    entries[0] = _mm512_sub_ps(entries[0], _mm512_set1_ps(*least));
    *span = _mm512_reduce_max_ps(entries[0]);
#else
    __m256 low = _mm256_min_ps(entries[0], entries[1]), high = _mm256_max_ps(entries[0], entries[1]);
    low = _mm256_min_ps(low, _mm256_permute2f128_ps(low, low, 1));
    high = _mm256_max_ps(high, _mm256_permute2f128_ps(high, high, 1));
    low = _mm256_min_ps(low, _mm256_permute_ps(low, 0x4E));
    high = _mm256_max_ps(high, _mm256_permute_ps(high, 0x4E));
    low = _mm256_min_ps(low, _mm256_permute_ps(low, 0xB1));
    high = _mm256_max_ps(high, _mm256_permute_ps(high, 0xB1));
    for (int i = 0; i < 2; i++) entries[i] = _mm256_sub_ps(entries[i], low);
    *least = _mm256_cvtss_f32(low);
    *span = _mm256_cvtss_f32(_mm256_sub_ps(high, low));
#endif
}

/* The product of a row and floats. */
TARGET static inline float LANES(of_floats)(const float *row, const float *other, int64_t count) {
    LANES(Floats) one = ZERO, two = ZERO;
    int64_t i = 0;
    for (; i + 2 * FLOATS <= count; i += 2 * FLOATS) {
        one = MULTIPLY_ADD(LOAD(row + i), LOAD(other + i), one);
        two = MULTIPLY_ADD(LOAD(row + i + FLOATS), LOAD(other + i + FLOATS), two);
    }
    float rest = 0;
    for (; i < count; i++) rest += row[i] * other[i];
    return LANES(sum)(ADD(one, two)) + rest;
}

/* The product of a row of bytes and numbers of 16 bits, which is exact. */
TARGET static inline int32_t LANES(of_bytes)(const int8_t *row, const int16_t *other, int64_t count) {
    int64_t i = 0;
#if WIDE
    __m512i one = _mm512_setzero_si512(), two = one;
    for (; i + 64 <= count; i += 64) {
        __m512i low = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)(row + i)));
        __m512i high = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)(row + i + 32)));
        one = _mm512_add_epi32(one, _mm512_madd_epi16(low, _mm512_loadu_si512(other + i)));
        two = _mm512_add_epi32(two, _mm512_madd_epi16(high, _mm512_loadu_si512(other + i + 32)));
    }
    int32_t all = _mm512_reduce_add_epi32(_mm512_add_epi32(one, two));
#else
    __m256i one = _mm256_setzero_si256(), two = one;
    for (; i + 32 <= count; i += 32) {
        __m256i low = _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(row + i)));
        __m256i high = _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(row + i + 16)));
        one = _mm256_add_epi32(one, _mm256_madd_epi16(low, _mm256_loadu_si256((const void *)(other + i))));
        two = _mm256_add_epi32(two, _mm256_madd_epi16(high, _mm256_loadu_si256((const void *)(other + i + 16))));
    }
    one = _mm256_add_epi32(one, two);
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(one), _mm256_extracti128_si256(one, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1));
    int32_t all = _mm_cvtsi128_si32(half);
#endif
    for (; i < count; i++) all += row[i] * other[i];
    return all;
}

/* Values of a row at one byte each, as floats: the level of each number as storage/one_byte.py has them, by the row's
   scale, which is exact. */
TARGET static inline LANES(Floats) LANES(from_bytes)(const int8_t *at, float scale) {
    const __m256i knee = _mm256_set1_epi16(64), second = _mm256_set1_epi16(96), zero = _mm256_setzero_si256();
    __m256i number = LOAD_NUMBERS(at);
    __m256i once = _mm256_max_epi16(_mm256_min_epi16(number, knee), _mm256_sub_epi16(zero, knee));
    __m256i twice = _mm256_max_epi16(_mm256_min_epi16(number, second), _mm256_sub_epi16(zero, second));
    __m256i level = _mm256_sub_epi16(_mm256_slli_epi16(number, 2), _mm256_add_epi16(once, _mm256_slli_epi16(twice, 1)));
    return MULTIPLY(FROM_SHORTS(level), SPREAD(scale));
}

/* Add the products of SUMS values of a row and a query to their sums. */
TARGET static inline void LANES(add_products)(LANES(Floats) *sums, const void *row, int is_bytes, float scale,
                                              const float *query) {
    for (int i = 0; i < SUMS; i += FLOATS) {
        LANES(Floats) values = is_bytes ? LANES(from_bytes)((const int8_t *)row + i, scale)
                                        : LOAD_HALVES((const uint16_t *)row + i);
        sums[i / FLOATS] = ADD(sums[i / FLOATS], MULTIPLY(values, LOAD(query + i)));
    }
}

/* The inner product of a stored row and a query, exactly as storage/exact_search.py adds it up, while the row `next` is
   fetched. */
TARGET static inline float LANES(added_up)(const char *row, int is_bytes, float scale, const float *query, int64_t count,
                                           const char *next) {
    LANES(Floats) sums[SUMS / FLOATS];
    int64_t whole = count / SUMS * SUMS, each = is_bytes ? 1 : 2;
    for (int i = 0; i < SUMS / FLOATS; i++) sums[i] = ZERO;
    for (int64_t at = 0; at < whole; at += SUMS) {
        ask_for(next + at * each, SUMS * each);
        LANES(add_products)(sums, row + at * each, is_bytes, scale, query + at);
    }
    if (whole < count) {
        char last_row[2 * SUMS] = {0};
        float last_query[SUMS] = {0};
        memcpy(last_row, row + whole * each, (size_t)((count - whole) * each));
        memcpy(last_query, query + whole, sizeof(float) * (size_t)(count - whole));
        LANES(add_products)(sums, last_row, is_bytes, scale, last_query);
    }
    float flat[SUMS];
    for (int half = SUMS / FLOATS / 2; half; half /= 2)
        for (int i = 0; i < half; i++) sums[i] = ADD(sums[i], sums[i + half]);
    STORE(flat, sums[0]);
    for (int half = FLOATS / 2; half; half /= 2)
        for (int i = 0; i < half; i++) flat[i] += flat[i + half];
    return flat[0];
}

TARGET static float LANES(exact_score)(const Scan *scan, int64_t id, const float *query, int64_t next) {
    const char *row = stored_row(scan, id), *further = stored_row(scan, next);
    if (!scan->scales) return LANES(added_up)(row, 0, 1, query, scan->dim, further);
    uint16_t scale = scan->scales[scan->scale_starts[id / scan->batch_rows] + id];
    return LANES(added_up)(row, 1, _cvtsh_ss(scale), query, scan->dim, further);
}

/* Fill the table of a query: what each centroid of each code adds to a score, above the least, in steps of one byte.
   Returns the size of a step; `floor` gets the sum of what is least. */
TARGET static float LANES(fill_table)(const Codes *codes, int64_t dim, const float *query, float *distances,
                                      uint8_t *table, float *floor) {
    int64_t width = dim / codes->count;
    float most = 0, all = 0;
    *floor = 0;
    for (int64_t code = 0; code < codes->count; code++) {
        const float *book = codes->codebook + code * CENTROIDS * width, *part = query + code * width;
        LANES(Floats) entries[CENTROIDS / FLOATS];
        for (int i = 0; i < CENTROIDS / FLOATS; i++) {
            entries[i] = ZERO;
            for (int64_t d = 0; d < width; d++)
                entries[i] = MULTIPLY_ADD(LOAD(book + d * CENTROIDS + i * FLOATS), SPREAD(part[d]), entries[i]);
        }
        float least, span;
        LANES(shifted)(entries, &least, &span);
        for (int i = 0; i < CENTROIDS / FLOATS; i++) STORE(distances + code * CENTROIDS + i * FLOATS, entries[i]);
        *floor += least;
        all += span;
        most = span > most ? span : most;
    }
    if (!(most > 0)) most = 1; /* a query that all codes are equal to */
    float steps = 255 / most, limit = (float)(65535 - codes->count); /* each may be rounded up by a half */
    if (all * steps > limit) steps = limit / all;
    for (int64_t i = 0; i < codes->count * CENTROIDS; i++) table[i] = (uint8_t)(distances[i] * steps + 0.5f);
    return 1 / steps;
}

/* The sums of one block's rows, 32 in their order, while the block `next` is fetched: asking for all of that at once
   would wait for what was asked before. Bytes are added in pairs, and what the odd ones carried into the
   sums of pairs is taken off in the end. */
TARGET static inline void LANES(sum_block)(const uint8_t *block, int64_t bytes, const uint8_t *table, uint16_t *sums,
                                            const uint8_t *next) {
#if WIDE
    const __m512i low = _mm512_set1_epi8(15);
    __m512i first = _mm512_setzero_si512(), first_odd = first, second = first, second_odd = first;
    for (int64_t at = 0; at < bytes; at += 64) {
        ask_for((const char *)next + at, 64);
        __m512i codes = _mm512_loadu_si512(block + at), entries = _mm512_load_si512(table + at);
        __m512i one = _mm512_shuffle_epi8(entries, _mm512_and_si512(codes, low));
        __m512i other = _mm512_shuffle_epi8(entries, _mm512_and_si512(_mm512_srli_epi16(codes, 4), low));
        first = _mm512_add_epi16(first, one);
        first_odd = _mm512_add_epi16(first_odd, _mm512_srli_epi16(one, 8));
        second = _mm512_add_epi16(second, other);
        second_odd = _mm512_add_epi16(second_odd, _mm512_srli_epi16(other, 8));
    }
    __m512i quarters[4] = {_mm512_sub_epi16(first, _mm512_slli_epi16(first_odd, 8)), first_odd,
                           _mm512_sub_epi16(second, _mm512_slli_epi16(second_odd, 8)), second_odd};
    for (int i = 0; i < 4; i++) {
        __m256i half = _mm256_add_epi16(_mm512_castsi512_si256(quarters[i]), _mm512_extracti64x4_epi64(quarters[i], 1));
        __m128i sum = _mm_add_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        _mm_storeu_si128((__m128i *)(sums + 8 * i), sum);
    }
#else
    const __m256i low = _mm256_set1_epi8(15);
    __m256i first = _mm256_setzero_si256(), first_odd = first, second = first, second_odd = first;
    for (int64_t at = 0; at < bytes; at += 32) {
        if (at % 64 == 0) ask_for((const char *)next + at, 64);
        __m256i codes = _mm256_loadu_si256((const void *)(block + at));
        __m256i entries = _mm256_load_si256((const void *)(table + at));
        __m256i one = _mm256_shuffle_epi8(entries, _mm256_and_si256(codes, low));
        __m256i other = _mm256_shuffle_epi8(entries, _mm256_and_si256(_mm256_srli_epi16(codes, 4), low));
        first = _mm256_add_epi16(first, one);
        first_odd = _mm256_add_epi16(first_odd, _mm256_srli_epi16(one, 8));
        second = _mm256_add_epi16(second, other);
        second_odd = _mm256_add_epi16(second_odd, _mm256_srli_epi16(other, 8));
    }
    __m256i quarters[4] = {_mm256_sub_epi16(first, _mm256_slli_epi16(first_odd, 8)), first_odd,
                           _mm256_sub_epi16(second, _mm256_slli_epi16(second_odd, 8)), second_odd};
    for (int i = 0; i < 4; i++) {
        __m128i sum =
            _mm_add_epi16(_mm256_castsi256_si128(quarters[i]), _mm256_extracti128_si256(quarters[i], 1));
        _mm_storeu_si128((__m128i *)(sums + 8 * i), sum);
    }
#endif
}

/* Which of 32 sums are at least `edge`, a bit each. */
TARGET static inline uint32_t LANES(at_least)(const uint16_t *sums, uint16_t edge) {
#if WIDE
    return _mm512_cmpge_epu16_mask(_mm512_loadu_si512(sums), _mm512_set1_epi16((short)edge));
#else
    const __m256i limit = _mm256_set1_epi16((short)edge);
    __m256i one = _mm256_loadu_si256((const void *)sums), other = _mm256_loadu_si256((const void *)(sums + 16));
    one = _mm256_cmpeq_epi16(_mm256_max_epu16(one, limit), one);
    other = _mm256_cmpeq_epi16(_mm256_max_epu16(other, limit), other);
    __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(one, other), 0xD8);
    return (uint32_t)_mm256_movemask_epi8(bytes);
#endif
}

/* Put the lists first that the codes of their centroids rank best, and return how many. */
TARGET static int64_t LANES(lists_by_codes)(const Scan *scan, int64_t wanted, const float *query, Work *work) {
    int64_t bytes = scan->centre_codes.count * CENTROIDS, chosen = 0;
    float floor;
    LANES(fill_table)(&scan->centre_codes, scan->dim, query, work->distances, work->centre_table, &floor);
    for (int64_t first = 0; first < scan->lists; first += BLOCK)
        LANES(sum_block)(scan->centre_blocks + first / BLOCK * bytes, bytes, work->centre_table, work->sums + first,
                         scan->centre_blocks + (first / BLOCK + AHEAD) * bytes);
    uint16_t edge = edge_of_best(work->sums, scan->lists, wanted);
    for (int64_t first = 0; first < scan->lists; first += BLOCK) {
        uint32_t good = LANES(at_least)(work->sums + first, edge);
        if (scan->lists - first < BLOCK) good &= ((uint32_t)1 << (scan->lists - first)) - 1;
        for (; good; good &= good - 1) work->lists[chosen++].id = first + __builtin_ctz(good);
    }
    return chosen;
}

/* Put the nprobe best lists first, best of all in front: where codes of the centroids say which can be, by the bytes of
   these; else by the narrow bytes of all twice as many, and these by the floats. */
TARGET static int64_t LANES(best_lists)(const Scan *scan, int64_t nprobe, const float *query, Work *work) {
    Scored *lists = work->lists;
    int64_t count = scan->lists, compared = 2 * nprobe, width = scan->narrow_width;
    if (scan->centre_blocks) {
        int64_t further = nprobe < CENTRES_FURTHER ? CENTRES_COMPARED * nprobe : nprobe + CENTRES_FURTHER;
        count = LANES(lists_by_codes)(scan, further, query, work);
        compared = nprobe;
    } else
        for (int64_t i = 0; i < count; i++) lists[i].id = i;
    for (int64_t i = 0; i < CENTRES_AHEAD && i < count; i++)
        ask_for((const char *)(scan->narrow + lists[i].id * width), width);
    for (int64_t i = 0; i < width; i++) work->narrow[i] = query[scan->narrow_dims[i]];
    float base = LANES(of_floats)(scan->narrow_mean, work->narrow, width);
    float step = to_shorts(work->narrow, width, work->shorts);
    for (int64_t i = 0; i < count; i++) {
        const int8_t *row = scan->narrow + lists[i].id * width;
        int64_t next = i + CENTRES_AHEAD;
        if (next < count) ask_for((const char *)(scan->narrow + lists[next].id * width), width);
        int32_t product = LANES(of_bytes)(row, work->shorts, width);
        lists[i].score = base + scan->narrow_scale[lists[i].id] * step * (float)product;
    }
    if (compared > count) compared = count;
    select_first(lists, count, compared);
    if (!scan->centre_blocks) {
        for (int64_t i = 0; i < compared; i++)
            ask_for((const char *)(scan->centroids + lists[i].id * scan->dim), 4 * scan->dim);
        for (int64_t i = 0; i < compared; i++)
            lists[i].score = LANES(of_floats)(scan->centroids + lists[i].id * scan->dim, query, scan->dim);
    }
    sort_by_score(lists, compared);
    return nprobe < compared ? nprobe : compared;
}

/* Go through a list, and keep what can be among the best `count` of a query. */
TARGET static void LANES(scan_list)(const Scan *scan, const Probe *probe, const Visit *visit, Work *work,
                                    Ahead *ahead) {
    Asked *asked = work->asked + visit->query;
    int64_t bytes = scan->codes.count * CENTROIDS, size = scan->sizes[visit->list];
    const uint8_t *block = scan->blocks[visit->list];
    const int64_t *ids = scan->ids[visit->list];
    float bias = visit->score + asked->floor;
    for (int64_t first = 0; first < size; first += BLOCK, block += bytes) {
        uint16_t sums[BLOCK];
        const uint8_t *next = ahead ? next_ahead(scan, ahead) : NULL;
        LANES(sum_block)(block, bytes, asked->table, sums, next ? next : block);
        float edge = (asked->least - bias) / asked->step; /* -inf while there are too few */
        if (edge > 65535) continue;
        uint32_t good = LANES(at_least)(sums, edge <= 0 ? 0 : (uint16_t)edge);
        if (size - first < BLOCK) good &= ((uint32_t)1 << (size - first)) - 1;
        for (; good; good &= good - 1) {
            int at = __builtin_ctz(good);
            int64_t id = ids[first + at];
            if (probe->allowed && !(probe->allowed[id >> 3] >> (id & 7) & 1)) continue;
            asked->found[asked->size].score = bias + asked->step * sums[at];
            asked->found[asked->size++].id = id;
        }
        if (asked->size + BLOCK > work->room)
            asked->size = narrowed(asked->found, asked->size, probe->kept, &asked->least);
    }
}

/* Take in a query: which lists it visits, in the order of their scores, and its table. */
TARGET static void LANES(take_in)(const Scan *scan, const Probe *probe, const float *query, Asked *asked, Work *work) {
    if (scan->rotation) {
        float step = to_shorts(query, scan->dim, work->shorts);
        for (int64_t i = 0; i < scan->dim; i++)
            asked->query[i] = scan->rotation_scale[i] * step *
                              (float)LANES(of_bytes)(scan->rotation + i * scan->dim, work->shorts, scan->dim);
    } else
        memcpy(asked->query, query, 4 * (size_t)scan->dim);
    asked->lists = LANES(best_lists)(scan, probe->nprobe, asked->query, work);
    asked->step =
        LANES(fill_table)(&scan->codes, scan->dim, asked->query, work->distances, asked->table, &asked->floor);
    asked->size = 0;
    asked->least = asked->telling = -INFINITY;
    asked->most = asked->floor + asked->step * hardly_more(asked->table, scan->codes.count);
}

/* Score the stored rows of the candidates. */
TARGET static void LANES(score_rows)(Scan *scan, const float *query, Scored *found, int64_t size) {
    int asking = scan->large ? __atomic_load_n(&scan->asking, __ATOMIC_RELAXED) : 0;
    int64_t waited = scan->large && !asking ? waits() : 0;
    for (int64_t i = 0; asking && i < size; i++) ask_disk_for(scan, found[i].id, found[i].id);
    for (int64_t i = 0; i < ROWS_AHEAD && i < size; i++)
        ask_for(stored_row(scan, found[i].id), scan->value_bytes * scan->dim);
    for (int64_t i = 0; i < size; i++) {
        int64_t next = i + ROWS_AHEAD < size ? i + ROWS_AHEAD : i;
        found[i].score = LANES(exact_score)(scan, found[i].id, query, found[next].id);
    }
    if (asking || (scan->large && waits() > waited))
        __atomic_store_n(&scan->asking, asking ? asking - 1 : ASKING, __ATOMIC_RELAXED);
}

/* Write the results of a query, best first, and say where there are none. */
TARGET static void LANES(give_out)(Scan *scan, const Probe *probe, const float *query, Asked *asked, int64_t *ids,
                                   float *scores) {
    Scored *found = asked->found;
    int64_t width = probe->exact ? probe->k : probe->count;
    int64_t size = narrowed(found, asked->size, probe->count, &asked->least);
    if (probe->exact) {
        size = each_once(found, size);
        LANES(score_rows)(scan, query, found, size);
        if (size > width) {
            select_first(found, size, width);
            size = width;
        }
    }
    sort_by_score(found, size);
    for (int64_t i = 0; i < width; i++) {
        ids[i] = i < size ? found[i].id : -1;
        scores[i] = i < size ? found[i].score : -INFINITY;
    }
}

/* Answer a group of queries, in stages: all go through their first lists, then through some more. What a query found
   before a stage says which lists still matter to it, so that what it finds does not depend on the other queries. */
TARGET static void LANES(search_group)(Scan *scan, const Probe *probe, const float *queries, int64_t number,
                                       Work *work, int64_t *ids, float *scores) {
    int64_t most = probe->nprobe < scan->lists ? probe->nprobe : scan->lists;
    for (int64_t i = 0; i < number; i++) {
        LANES(take_in)(scan, probe, queries + i * scan->dim, work->asked + i, work);
        for (int64_t at = 0; at < work->asked[i].lists; at++) {
            Visit visit = {work->lists[at].id, i, work->lists[at].score};
            work->visits[i * most + at] = visit;
        }
    }
    for (int64_t first = 0, last = FIRST_LISTS; first < most; first = last, last *= LISTS_A_STAGE) {
        int64_t count = visits_of(scan, most, number, first, last, work);
        Ahead ahead = begun(scan, work->sorted, count);
        for (int64_t at = 0; at < count; at++) {
            int again = at && work->sorted[at].list == work->sorted[at - 1].list;
            LANES(scan_list)(scan, probe, work->sorted + at, work, again ? NULL : &ahead);
        }
        for (int64_t i = 0; i < number && last < most; i++) {
            Asked *asked = work->asked + i;
            asked->size = narrowed(asked->found, asked->size, probe->kept, &asked->least);
            asked->telling = score_of_rank(asked->found, asked->size, probe->telling);
        }
    }
    int64_t width = probe->exact ? probe->k : probe->count;
    for (int64_t i = 0; i < number; i++)
        LANES(give_out)(scan, probe, queries + i * scan->dim, work->asked + i, ids + i * width, scores + i * width);
}

/* Compare a query with rows `first` to `last` of `subset`, or of all, and return how many candidates there are then. */
TARGET static int64_t LANES(compare_rows)(const Scan *scan, const Comparison *asked, int64_t number, int64_t first,
                                          int64_t last, Scored *found, int64_t size, float *least) {
    const float *query = asked->queries + number * scan->dim;
    int64_t excluded = asked->excluded ? asked->excluded[number] : -1;
    for (int64_t i = first; i < last; i++) {
        int64_t id = asked->subset ? asked->subset[i] : i;
        float score = LANES(exact_score)(scan, id, query, id);
        if (score < *least || id == excluded) continue;
        found[size].score = score;
        found[size++].id = id;
        if (size == asked->room) size = narrowed(found, size, asked->k, least);
    }
    return size;
}

#undef FLOATS
#undef ZERO
#undef ADD
#undef MULTIPLY
#undef MULTIPLY_ADD
#undef SPREAD
#undef LOAD
#undef STORE
#undef LOAD_HALVES
#undef FROM_SHORTS
#undef LOAD_NUMBERS
