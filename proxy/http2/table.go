package http2

import "hash/maphash"

// static is the table of RFC 7541, appendix A; the index on the wire is one more.
var static = [...][2]string{
	{":authority", ""}, {":method", "GET"}, {":method", "POST"}, {":path", "/"}, {":path", "/index.html"}, {":scheme", "http"},
	{":scheme", "https"}, {":status", "200"}, {":status", "204"}, {":status", "206"}, {":status", "304"}, {":status", "400"},
	{":status", "404"}, {":status", "500"}, {"accept-charset", ""}, {"accept-encoding", "gzip, deflate"}, {"accept-language", ""},
	{"accept-ranges", ""}, {"accept", ""}, {"access-control-allow-origin", ""}, {"age", ""}, {"allow", ""}, {"authorization", ""},
	{"cache-control", ""}, {"content-disposition", ""}, {"content-encoding", ""}, {"content-language", ""}, {"content-length", ""},
	{"content-location", ""}, {"content-range", ""}, {"content-type", ""}, {"cookie", ""}, {"date", ""}, {"etag", ""}, {"expect", ""},
	{"expires", ""}, {"from", ""}, {"host", ""}, {"if-match", ""}, {"if-modified-since", ""}, {"if-none-match", ""}, {"if-range", ""},
	{"if-unmodified-since", ""}, {"last-modified", ""}, {"link", ""}, {"location", ""}, {"max-forwards", ""}, {"proxy-authenticate", ""},
	{"proxy-authorization", ""}, {"range", ""}, {"referer", ""}, {"refresh", ""}, {"retry-after", ""}, {"server", ""}, {"set-cookie", ""},
	{"strict-transport-security", ""}, {"transfer-encoding", ""}, {"user-agent", ""}, {"vary", ""}, {"via", ""}, {"www-authenticate", ""},
}

const (
	entryOverhead = 32 // RFC 7541 §4.1
	maxTable      = 4096
	maxEntries    = maxTable / entryOverhead
	maxIndexed    = 1024 // longer fields are not worth the table
	ringSize      = 2 * maxTable
)

var seed = maphash.MakeSeed()

// sum is the hash of a field; the name alone has that of an empty value.
func sum(name, value []byte) uint64 {
	h := maphash.Bytes(seed, name)
	if len(value) > 0 {
		h = h*31 + maphash.Bytes(seed, value)
	}
	return h
}

// An entry of the table lies in the ring.
type entry struct {
	sum         uint64
	at          int
	name, value int // lengths
}

// A table is the dynamic table of an encoder: its fields lie one after the other in a
// ring of bytes that is twice as long as the table may be, so that a field is never torn.
type table struct {
	entries [maxEntries]entry
	first   int // of the oldest entry
	n       int
	size    int // as RFC 7541 counts it
	max     int
	ring    []byte
	head    int // where the next field goes
}

// find returns the index on the wire of a field, 0 if there is none.
func (t *table) find(h uint64, name, value []byte) int {
	for i := t.n - 1; i >= 0; i-- {
		e := &t.entries[(t.first+i)%maxEntries]
		if e.sum == h && e.name == len(name) && e.value == len(value) &&
			string(t.ring[e.at:e.at+e.name]) == string(name) && string(t.ring[e.at+e.name:e.at+e.name+e.value]) == string(value) {
			return len(static) + t.n - i
		}
	}
	return 0
}

// findName returns the index on the wire of an entry with that name, 0 if there is none.
func (t *table) findName(name []byte) int {
	for i := t.n - 1; i >= 0; i-- {
		e := &t.entries[(t.first+i)%maxEntries]
		if e.name == len(name) && string(t.ring[e.at:e.at+e.name]) == string(name) {
			return len(static) + t.n - i
		}
	}
	return 0
}

// add stores a field, which is not longer than maxIndexed, as the newest.
func (t *table) add(h uint64, name, value []byte) {
	size := len(name) + len(value) + entryOverhead
	t.evict(t.max - size)
	if size > t.max {
		return
	}
	if t.ring == nil {
		t.ring = make([]byte, ringSize)
	}
	if t.head+len(name)+len(value) > ringSize {
		t.head = 0
	}
	e := &t.entries[(t.first+t.n)%maxEntries]
	*e = entry{h, t.head, len(name), len(value)}
	t.head += copy(t.ring[t.head:], name)
	t.head += copy(t.ring[t.head:], value)
	t.n++
	t.size += size
}

// evict drops the oldest entries until size is left at most.
func (t *table) evict(size int) {
	for t.n > 0 && t.size > size {
		e := &t.entries[t.first]
		t.size -= e.name + e.value + entryOverhead
		t.first = (t.first + 1) % maxEntries
		t.n--
	}
}
