package http2

import (
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// A kind is what a header block is for.
type kind uint8

const (
	request kind = iota
	answer
	trailers
	nothing // decoded for the table's sake only
)

// A head is a decoded header block with the memory of its values.
type head struct {
	http.Headers
	pseudo
	kind    kind
	status  int
	length  int64  // content-length, -1 for none
	expect  bool   // 100-continue
	broken  string // what is malformed, \"\" when nothing is
	field   bool   // it is a field, not the head as a whole
	last    bool   // END_STREAM came with it
	over    bool   // larger than the limits
	many    bool   // over by the number of fields
	arena   []byte
	cookies int // crumbs seen; they are joined at the end
	cookie  []byte
	regular bool // a field that is not a pseudo header came
	host    []byte
}

// pseudo are the pseudo headers, nil where there is none.
type pseudo struct{ method, scheme, authority, path, protocol []byte }

var heads = sync.Pool{New: func() any { return new(head) }}

const (
	maxKeptArena  = 8 << 10
	maxKeptFields = 128
)

func (h *head) free() {
	fields, arena, cookie := h.Fields, h.arena, h.cookie
	if cap(arena) > maxKeptArena || cap(cookie) > maxKeptArena || cap(fields) > maxKeptFields {
		return
	}
	clear(fields)
	*h = head{arena: arena[:0], cookie: cookie[:0]}
	h.Fields = fields[:0]
	heads.Put(h)
}

// keep copies a value into the head's memory.
func (h *head) keep(s string) []byte {
	if cap(h.arena)-len(h.arena) < len(s) {
		h.arena = make([]byte, 0, max(2*cap(h.arena), len(s), 1<<10)) // what was kept stays where it is
	}
	n := len(h.arena)
	h.arena = append(h.arena, s...)
	return h.arena[n:len(h.arena):len(h.arena)]
}

// A decoder reads header blocks. It belongs to the goroutine that reads.
type decoder struct {
	hpack    *hpack.Decoder
	maxBytes int
	maxCount int

	h     *head
	bytes int
	count int
}

// blockSlack is how much longer a coded block may be than the head it may become:
// fields that are dropped, table updates.
const blockSlack = 64 << 10

func newDecoder(o *Options) *decoder {
	d := &decoder{maxBytes: o.MaxHeadBytes, maxCount: o.MaxHeaders}
	table := uint32(max(o.HeaderTable, 0))
	d.hpack = hpack.NewDecoder(maxTable, d.emit)
	d.hpack.SetAllowedMaxDynamicTableSize(max(table, maxTable))     // the peer may not have read our SETTINGS yet
	d.hpack.SetMaxStringLength(2 * max(o.MaxHeadBytes, blockSlack)) // longer ones cannot be decoded and skipped
	return d
}

// begin starts a block.
func (d *decoder) begin(k kind) {
	d.h = heads.Get().(*head)
	d.h.kind, d.h.length = k, -1
	d.bytes, d.count = 0, 0
	d.hpack.SetEmitEnabled(k != nothing)
}

// write decodes a part of the block.
func (d *decoder) write(p []byte) error {
	if _, err := d.hpack.Write(p); err != nil {
		return breach(http2.ErrCodeCompression, "header block cannot be decoded")
	}
	return nil
}

// end finishes the block and hands the head over.
func (d *decoder) end() (*head, error) {
	if err := d.hpack.Close(); err != nil {
		return nil, breach(http2.ErrCodeCompression, "header block is cut off")
	}
	h := d.h
	d.h = nil
	if h.kind != nothing && !h.over {
		h.finish()
	}
	return h, nil
}

// emit takes one field.
func (d *decoder) emit(f hpack.HeaderField) {
	h := d.h
	d.bytes += len(f.Name) + len(f.Value)
	d.count++
	if d.bytes > d.maxBytes || d.count > d.maxCount {
		h.over, h.many = true, d.bytes <= d.maxBytes
		d.hpack.SetEmitEnabled(false)
		return
	}
	if h.broken != "" {
		return
	}
	if len(f.Name) > 0 && f.Name[0] == ':' {
		h.addPseudo(f)
	} else {
		h.addField(f)
	}
	h.field = h.broken != ""
}

func (h *head) addPseudo(f hpack.HeaderField) {
	if h.regular || h.kind == trailers {
		h.broken = "pseudo header out of place"
		return
	}
	var p *[]byte
	class := valueByte
	switch {
	case h.kind == answer:
		h.setStatus(f)
		return
	case f.Name == ":method":
		p, class = &h.method, upperToken
	case f.Name == ":path":
		p, class = &h.path, pathByte
	case f.Name == ":authority":
		p, class = &h.authority, authorityByte
	case f.Name == ":scheme":
		p, class = &h.scheme, schemeByte
	case f.Name == ":protocol":
		p, class = &h.protocol, upperToken
	}
	if p == nil || *p != nil || !all(bytesOf(f.Value), class) || f.Value == "" {
		h.broken = "pseudo header invalid"
		return
	}
	*p = h.keep(f.Value)
}

func (h *head) setStatus(f hpack.HeaderField) {
	v := f.Value
	if f.Name != ":status" || h.status != 0 || len(v) != 3 || v[0] < '1' || v[0] > '9' || v[1]-'0' > 9 || v[2]-'0' > 9 {
		h.broken = "status invalid"
		return
	}
	h.status = int(v[0]-'0')*100 + int(v[1]-'0')*10 + int(v[2]-'0')
}

func (h *head) addField(f hpack.HeaderField) {
	h.regular = true
	name := bytesOf(f.Name)
	if len(name) == 0 || !all(name, tokenByte) || !all(bytesOf(f.Value), valueByte) {
		h.broken = "field invalid"
		return
	}
	switch f.Name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		h.broken = "field of a connection"
		return
	case "te":
		if !http.EqualFold(bytesOf(f.Value), "trailers") {
			h.broken = "te invalid"
			return
		}
	case "content-length":
		if !h.setLength(f.Value) {
			return
		}
	case "host":
		h.setHost(f.Value)
		return
	case "cookie":
		if h.kind == request {
			h.addCookie(f.Value)
			return
		}
	case "expect":
		h.expect = http.EqualFold(bytesOf(f.Value), "100-continue")
	}
	h.Fields = append(h.Fields, http.Field{Name: name, Value: h.keep(f.Value)})
}

// setHost remembers the authority of HTTP/1, which counts where there is no other.
func (h *head) setHost(v string) {
	if h.kind != request {
		h.Fields = append(h.Fields, http.Field{Name: bytesOf("host"), Value: h.keep(v)})
		return
	}
	if h.host != nil || v == "" || !all(bytesOf(v), authorityByte) {
		h.broken = "host invalid"
		return
	}
	h.host = h.keep(v)
}

// addCookie joins the crumbs of a cookie.
func (h *head) addCookie(v string) {
	if h.cookies > 0 {
		h.cookie = append(h.cookie, "; "...)
	}
	h.cookie = append(h.cookie, v...)
	h.cookies++
}

func (h *head) setLength(v string) bool {
	n := int64(0)
	for i := range len(v) {
		c := v[i] - '0'
		if c > 9 || n > (1<<62)/10 {
			n = -1
			break
		}
		n = n*10 + int64(c)
	}
	if h.kind == trailers {
		return true
	}
	if len(v) == 0 || n < 0 || h.length >= 0 {
		h.broken = "content-length invalid"
		return false
	}
	h.length = n
	return true
}

// details is what a head that is broken is logged with.
func (h *head) details() string {
	if h.field {
		return invalidField
	}
	return violation
}

// finish judges the head as a whole.
func (h *head) finish() {
	if h.broken != "" {
		return
	}
	if h.cookies > 0 {
		h.Fields = append(h.Fields, http.Field{Name: bytesOf("cookie"), Value: h.cookie})
	}
	switch h.kind {
	case request:
		h.finishRequest()
	case answer:
		if h.status == 0 || h.status == 101 {
			h.broken = "status invalid"
		}
		if (h.status < 200 || h.status == 204) && h.length > 0 {
			h.broken = "content-length on an answer without a body"
		}
	}
}

func (h *head) finishRequest() {
	if h.authority == nil {
		h.authority = h.host
	}
	connect := string(h.method) == "CONNECT"
	switch {
	case connect && h.protocol == nil:
		if h.authority == nil || h.scheme != nil || h.path != nil {
			h.broken = "CONNECT invalid"
		}
		return
	case h.protocol != nil && !connect:
		h.broken = "protocol without CONNECT"
		return
	case h.method == nil || h.scheme == nil || h.path == nil || h.authority == nil:
		h.broken = "pseudo header missing"
		return
	}
	if h.path[0] != '/' && (string(h.path) != "*" || string(h.method) != "OPTIONS") {
		h.broken = "path invalid"
	}
}
