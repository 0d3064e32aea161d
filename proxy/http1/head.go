package http1

import (
	"bytes"
	"math"
	"slices"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// headEnd is the length of the head at the start of b, 0 while it is incomplete:
// a line that is empty but for CR ends it. from is where an earlier call gave up;
// next is where the next call may start.
func headEnd(b []byte, from int) (end, next int) {
	for i := from; ; {
		n := indexByte(b[i:], '\n')
		if n < 0 {
			return 0, max(0, i-1)
		}
		at := i + n
		switch {
		case at+1 < len(b) && b[at+1] == '\n':
			return at + 2, 0
		case at+2 < len(b) && b[at+1] == '\r' && b[at+2] == '\n':
			return at + 3, 0
		case at+2 >= len(b):
			return 0, at
		}
		i = at + 1
	}
}

// cutLine returns the first line of b without its line end, and the rest.
func cutLine(b []byte) (line, rest []byte, ok bool) {
	i := indexByte(b, '\n')
	if i < 0 {
		return nil, b, false
	}
	line, rest = b[:i], b[i+1:]
	if i > 0 && line[i-1] == '\r' {
		line = line[:i-1]
	}
	return line, rest, true
}

// blank reports whether c separates the parts of a first line.
func blank(c byte) bool { return c == ' ' || c == '\t' }

// cutWord returns the first word of a first line and what follows its blanks.
func cutWord(b []byte) (word, rest []byte) {
	i := 0
	for i < len(b) && !blank(b[i]) {
		i++
	}
	word = b[:i]
	for i < len(b) && blank(b[i]) {
		i++
	}
	return word, b[i:]
}

// fields parses the field lines of a complete head into f, which it calls for each.
// b is changed in place where lines are folded.
func fields(b []byte, limit int, f func(name, value []byte) error) error {
	if len(b) > 0 && blank(b[0]) {
		return refuse(b)
	}
	for n := 0; len(b) > 0; {
		if b[0] == '\n' || b[0] == '\r' && len(b) > 1 && b[1] == '\n' {
			return nil
		}
		name, value, rest, err := cutField(b)
		if err != nil {
			return err
		}
		if n++; n > limit {
			return errTooMany
		}
		if err := f(name, value); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// cutField parses the first field of b with its continuation lines.
func cutField(b []byte) (name, value, rest []byte, err error) {
	i := 0
	for i < len(b) && class[b[i]]&isToken != 0 {
		i++
	}
	if i == 0 || i == len(b) || b[i] != ':' {
		return nil, nil, nil, refuse(b)
	}
	name, b = b[:i], b[i+1:]
	end := indexByte(b, '\n')
	for end >= 0 && end+1 < len(b) && blank(b[end+1]) { // obs-fold
		n := indexByte(b[end+1:], '\n')
		if n < 0 {
			return nil, nil, nil, errCodec
		}
		end += 1 + n
	}
	if end < 0 {
		return nil, nil, nil, errCodec
	}
	value, rest = b[:end], b[end+1:]
	if end > 0 && value[end-1] == '\r' {
		value = value[:end-1]
	}
	if !all(value, isValue) {
		if value, err = unfold(value); err != nil {
			return nil, nil, nil, err
		}
	}
	return name, trim(value), rest, nil
}

// unfold removes CR and LF from a value in place; other control characters refuse it.
func unfold(v []byte) ([]byte, error) {
	out := v[:0]
	for _, c := range v {
		switch {
		case c == '\r' || c == '\n':
		case class[c]&isValue == 0:
			return nil, errCharacters
		default:
			out = append(out, c)
		}
	}
	return out, nil
}

// refuse is the error for a line that is no field: control characters are named as such.
func refuse(b []byte) error {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if controls(line) {
		return errCharacters
	}
	return errCodec
}

// controls reports characters in a line that no line may have.
func controls(line []byte) bool {
	for _, c := range line {
		if c != '\r' && c < 0x80 && class[c]&isValue == 0 {
			return true
		}
	}
	return false
}

// length parses a content-length: digits only, up to 64 bits. More than a body can ever
// have is the most that it can have.
func length(v []byte) (int64, bool) {
	var n uint64
	for _, c := range v {
		if c < '0' || c > '9' || n > math.MaxUint64/10 {
			return 0, false
		}
		if n = n*10 + uint64(c-'0'); n < uint64(c-'0') {
			return 0, false
		}
	}
	return int64(min(n, math.MaxInt64)), len(v) > 0
}

// A framing gathers the fields of a head that concern the connection.
type framing struct {
	headers    *http.Headers
	length     int64 // -1: no content-length
	encodings  int   // how many transfer-encoding fields
	chunked    bool  // the first was "chunked"
	host       []byte
	hostName   []byte // as it was written
	answer     bool   // the head is of an answer: host means nothing
	connection []byte // value of the first connection field
	more       bool   // there are further connection fields
	upgrade    []byte
	expect     bool // 100-continue
	keepAlive  bool // of connection
	close      bool
	upgrades   bool // connection lists upgrade
	nominates  bool // connection lists something else
	tokens     int  // how many elements the connection fields have
}

// reset makes f ready for a head whose fields go to h.
func (f *framing) reset(h *http.Headers) {
	*f = framing{headers: h, length: -1, answer: f.answer}
	h.Reset()
}

// field takes one field of a head. The length of the name decides quickly that it is
// an ordinary one.
func (f *framing) field(name, value []byte) error {
	switch len(name) {
	case 4:
		if !f.answer && http.EqualFold(name, "host") {
			f.hostName = name
			f.addHost(value)
			return nil
		}
	case 6:
		if http.EqualFold(name, "expect") && http.EqualFold(value, "100-continue") {
			f.expect = true
		}
	case 7:
		if http.EqualFold(name, "upgrade") {
			f.upgrade = value
		}
	case 10:
		switch {
		case http.EqualFold(name, "connection"):
			f.addConnection(value)
		case http.EqualFold(name, "keep-alive"):
			return nil
		}
	case 14:
		if http.EqualFold(name, "content-length") {
			n, ok := length(value)
			if !ok || f.length >= 0 {
				return errCodec
			}
			f.length = n
		}
	case 16:
		if http.EqualFold(name, "proxy-connection") {
			return nil
		}
	case 17:
		if http.EqualFold(name, "transfer-encoding") {
			f.encodings++
			f.chunked = http.EqualFold(value, "chunked")
			return nil
		}
	}
	f.headers.Fields = append(f.headers.Fields, http.Field{Name: name, Value: value})
	return nil
}

// addHost joins several hosts by a comma, as Envoy does.
func (f *framing) addHost(v []byte) {
	if f.host == nil {
		f.host = slices.Clip(v)
		if f.host == nil {
			f.host = []byte{}
		}
		return
	}
	f.host = append(append(f.host, ','), v...)
}

func (f *framing) addConnection(v []byte) {
	if f.connection != nil {
		f.more = true
	}
	f.connection = v
	for len(v) > 0 {
		t := v
		if i := indexByte(v, ','); i >= 0 {
			t, v = v[:i], v[i+1:]
		} else {
			v = nil
		}
		if t = trim(t); len(t) == 0 {
			continue
		}
		f.tokens++
		switch {
		case http.EqualFold(t, "close"):
			f.close = true
		case http.EqualFold(t, "keep-alive"):
			f.keepAlive = true
		case http.EqualFold(t, "upgrade"):
			f.upgrades = true
		default:
			f.nominates = true
		}
	}
}

// lengths decides how the body is framed: its length, -1 when chunked, and 0 with
// none true when the head says nothing.
func (f *framing) lengths() (n int64, none bool, err error) {
	switch {
	case f.encodings > 0 && f.length >= 0:
		return 0, false, errBothLengths
	case f.encodings > 1 || f.encodings == 1 && !f.chunked:
		return 0, false, errEncoding
	case f.encodings == 1:
		return -1, false, nil
	case f.length >= 0:
		return f.length, false, nil
	}
	return 0, true, nil
}

// dropLength forgets a content-length where the body is chunked: that is how it ends.
func (f *framing) dropLength() {
	if f.encodings > 0 && f.length >= 0 {
		f.length = -1
		f.headers.Remove("content-length")
	}
}

// strip removes connection, upgrade and what connection nominates, unless keep says
// that the connection is to be upgraded. "te: trailers" always stays.
func (f *framing) strip(keep bool) {
	if f.connection == nil && f.upgrade == nil || keep && !f.nominates {
		return
	}
	h := f.headers
	if f.nominates && !f.answer {
		f.denominate()
	}
	if keep {
		return
	}
	h.Remove("connection")
	if f.upgrade != nil {
		h.Remove("upgrade")
	}
}

// Bounds of what a client may nominate.
const (
	maxNominated = 10  // elements of connection that refuse a request
	maxTE        = 256 // bytes of te when it is nominated
)

// refusesNominations refuses a request whose connection field lists what may not be
// taken away, as Envoy does: forwarding fields would hide where it came from. A host
// that is listed goes, and with it the request's authority.
func (f *framing) refusesNominations() error {
	if f.tokens >= maxNominated {
		return errNominations
	}
	if !f.nominates {
		return nil
	}
	refused := false
	for _, list := range f.lists() {
		eachToken(list, func(t []byte) {
			switch {
			case t[0] == ':', http.EqualFold(t, "x-forwarded-for"), http.EqualFold(t, "x-forwarded-host"), http.EqualFold(t, "x-forwarded-proto"),
				http.EqualFold(t, "te") && len(f.headers.Get("te")) > maxTE:
				refused = true
			case http.EqualFold(t, "host"):
				f.host = nil
			}
		})
	}
	if refused {
		return errNominations
	}
	return nil
}

// lists are the values of the connection fields.
func (f *framing) lists() (lists [][]byte) {
	for _, x := range f.headers.Fields {
		if http.EqualFold(x.Name, "connection") {
			lists = append(lists, x.Value)
		}
	}
	return lists
}

// denominate removes the fields that connection lists.
func (f *framing) denominate() {
	lists := f.lists()
	kept := f.headers.Fields[:0]
	for _, x := range f.headers.Fields {
		if !f.nominated(lists, x) {
			kept = append(kept, x)
		}
	}
	f.headers.Fields = kept
}

func (f *framing) nominated(lists [][]byte, x http.Field) bool {
	if http.EqualFold(x.Name, "connection") || http.EqualFold(x.Name, "upgrade") {
		return false // strip decides
	}
	if http.EqualFold(x.Name, "te") && hasToken(x.Value, "trailers") {
		return false
	}
	found := false
	for _, l := range lists {
		eachToken(l, func(t []byte) { found = found || foldEqual(t, x.Name) })
	}
	return found
}

func foldEqual(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if http.Lower(a[i]) != http.Lower(b[i]) {
			return false
		}
	}
	return true
}
