package http2

import (
	"strconv"

	"golang.org/x/net/http2/hpack"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// An encoder writes header blocks (RFC 7541). Fields that are likely to come again go
// into the table, Huffman coded as they are sent once; others are sent as they are,
// because the bytes saved do not outweigh coding them each time on both sides. It
// allocates nothing.
type encoder struct {
	table   table
	resized bool // the peer must be told
	lower   []byte
}

func (e *encoder) init() { e.table.max = maxTable }

// resize follows the peer's SETTINGS_HEADER_TABLE_SIZE. A table that was made smaller does
// not grow before the peer was told, which takes one update then and not two (x/net's
// decoder takes only one).
func (e *encoder) resize(n uint32) {
	size := int(min(n, maxTable))
	if size == e.table.max || e.resized && size > e.table.max {
		return
	}
	e.table.max, e.resized = size, true
	e.table.evict(size)
}

// begin starts a block.
func (e *encoder) begin(b []byte) []byte {
	if !e.resized {
		return b
	}
	e.resized = false
	return appendInt(b, 0x20, 5, e.table.max)
}

// indexing is what an encoder does with a field.
type indexing uint8

const (
	index indexing = iota
	plain          // values differ from message to message
	never          // secrets that could be guessed byte by byte
)

// A known is what an encoder knows of a name.
type known struct {
	ref uint8 // its first index in the static table, 0: none
	how indexing
}

// names are those that are in the static table, or whose fields stay out of the dynamic one.
var names = func() map[string]known {
	m := make(map[string]known, 2*len(static))
	for i, e := range static {
		if m[e[0]].ref == 0 {
			m[e[0]] = known{ref: uint8(i + 1)}
		}
	}
	say := func(how indexing, names ...string) {
		for _, n := range names {
			m[n] = known{m[n].ref, how}
		}
	}
	say(plain, ":path", "age", "content-length", "etag", "if-modified-since", "if-none-match", "location", "set-cookie", "x-request-id",
		"traceparent", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "b3", "grpc-timeout", "last-modified", "content-range", "range")
	say(never, "authorization", "proxy-authorization")
	return m
}()

// field appends one field; the name is in lower case.
func (e *encoder) field(b, name, value []byte) []byte {
	k := names[string(name)]
	how, ref := k.how, int(k.ref)
	if len(value) < 20 && string(name) == "cookie" {
		how = never
	}
	if ref > 0 && value != nil {
		for i := ref; i <= len(static) && static[i-1][0] == string(name); i++ {
			if static[i-1][1] == string(value) && len(value) > 0 {
				return appendInt(b, 0x80, 7, i)
			}
		}
	}
	if len(name)+len(value) > maxIndexed || len(name)+len(value)+entryOverhead > e.table.max {
		how = max(how, plain)
	}
	if how != index {
		return e.literal(b, how, ref, name, value)
	}
	h := sum(name, value)
	if i := e.table.find(h, name, value); i > 0 {
		return appendInt(b, 0x80, 7, i)
	}
	if ref == 0 {
		ref = e.table.findName(name)
	}
	b = appendInt(b, 0x40, 6, ref)
	if ref == 0 {
		b = appendHuffman(b, name)
	}
	b = appendHuffman(b, value)
	e.table.add(h, name, value)
	return b
}

// literal appends a field that stays out of the table.
func (e *encoder) literal(b []byte, how indexing, ref int, name, value []byte) []byte {
	first := byte(0)
	if how == never {
		first = 0x10
	}
	if ref == 0 {
		ref = e.table.findName(name)
	}
	b = appendInt(b, first, 4, ref)
	if ref == 0 {
		b = append(appendInt(b, 0, 7, len(name)), name...)
	}
	return append(appendInt(b, 0, 7, len(value)), value...)
}

// appendInt appends an integer with an n bit prefix, RFC 7541 §5.1.
func appendInt(b []byte, first byte, n uint, v int) []byte {
	limit := 1<<n - 1
	if v < limit {
		return append(b, first|byte(v))
	}
	b = append(b, first|byte(limit))
	for v -= limit; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

func appendHuffman(b, v []byte) []byte {
	s := stringOf(v)
	n := hpack.HuffmanEncodeLength(s)
	if n >= uint64(len(v)) {
		return append(appendInt(b, 0, 7, len(v)), v...)
	}
	return hpack.AppendHuffmanString(appendInt(b, 0x80, 7, int(n)), s)
}

// fields appends those of a message but what belongs to the connection. upgrades says
// that the message changes the protocol, which HTTP/2 says otherwise.
func (e *encoder) fields(b []byte, h *http.Headers) []byte {
	for i := range h.Fields {
		f := &h.Fields[i]
		name := e.lowered(f.Name)
		if connectionField(name, f.Value) {
			continue
		}
		b = e.field(b, name, f.Value)
	}
	return b
}

// lowered returns the name in lower case, valid until the next call.
func (e *encoder) lowered(name []byte) []byte {
	for i, c := range name {
		if http.Lower(c) != c {
			e.lower = append(e.lower[:0], name...)
			for j := i; j < len(name); j++ {
				e.lower[j] = http.Lower(name[j])
			}
			return e.lower
		}
	}
	return name
}

// connectionField reports fields that have no place in HTTP/2 (RFC 9113 §8.2.2).
func connectionField(name, value []byte) bool {
	switch len(name) {
	case 2:
		return string(name) == "te" && !http.EqualFold(value, "trailers")
	case 4:
		return string(name) == "host"
	case 7:
		return string(name) == "upgrade"
	case 10:
		return string(name) == "connection" || string(name) == "keep-alive"
	case 14:
		return string(name) == "http2-settings"
	case 16:
		return string(name) == "proxy-connection"
	case 17:
		return string(name) == "transfer-encoding"
	}
	return false
}

// request appends the block of a request.
func (e *encoder) request(b []byte, r *http.Request) []byte {
	b = e.begin(b)
	method := r.Method
	if r.Upgrade != nil {
		method = []byte("CONNECT")
	}
	b = e.field(b, []byte(":method"), method)
	if r.Upgrade != nil || string(method) != "CONNECT" || len(r.Path) > 0 {
		scheme := r.Scheme
		if len(scheme) == 0 {
			scheme = []byte("http")
		}
		b = e.field(b, []byte(":scheme"), scheme)
		b = e.field(b, []byte(":path"), r.Path)
	}
	b = e.field(b, []byte(":authority"), r.Authority)
	if r.Upgrade != nil {
		b = e.field(b, []byte(":protocol"), r.Upgrade)
	}
	return e.fields(b, &r.Headers)
}

// response appends the block of an answer; tunnel says that 101 is told by 200.
func (e *encoder) response(b []byte, r *http.Response, tunnel bool) []byte {
	b = e.begin(b)
	status := r.Status
	if tunnel && status == 101 {
		status = 200
	}
	if status == 200 {
		b = append(b, 0x88)
	} else {
		var text [4]byte
		b = e.field(b, []byte(":status"), strconv.AppendInt(text[:0], int64(status), 10))
	}
	return e.fields(b, &r.Headers)
}

// trailers appends the block of trailers.
func (e *encoder) trailers(b []byte, h *http.Headers) []byte { return e.fields(e.begin(b), h) }
