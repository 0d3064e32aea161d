package http

// A Field is one header line. Name keeps the bytes as they were read; it is
// compared without regard to case and written in lower case unless the codec is
// told to preserve case.
type Field struct {
	Name, Value []byte
}

// Headers are the fields of a head in the order of the wire. Pseudo headers are
// not among them. The zero value is empty and ready to use. Not safe for
// concurrent use. Names given to methods are in lower case.
type Headers struct {
	Fields []Field
}

// Reset empties h and keeps its memory.
func (h *Headers) Reset() { h.Fields = h.Fields[:0] }

// Get returns the value of the first field of that name, nil if there is none.
func (h *Headers) Get(name string) []byte {
	for i := range h.Fields {
		if EqualFold(h.Fields[i].Name, name) {
			return h.Fields[i].Value
		}
	}
	return nil
}

// Has reports whether there is a field of that name.
func (h *Headers) Has(name string) bool {
	for i := range h.Fields {
		if EqualFold(h.Fields[i].Name, name) {
			return true
		}
	}
	return false
}

// Add appends a field. name and value are kept, not copied.
func (h *Headers) Add(name, value []byte) { h.Fields = append(h.Fields, Field{name, value}) }

// Set replaces the first field of that name in place and removes the others, or
// appends one. name and value are kept, not copied.
func (h *Headers) Set(name string, value []byte) {
	found := false
	kept := h.Fields[:0]
	for _, f := range h.Fields {
		if EqualFold(f.Name, name) {
			if found {
				continue
			}
			f.Value, found = value, true
		}
		kept = append(kept, f)
	}
	h.Fields = kept
	if !found {
		h.Fields = append(h.Fields, Field{bytesOf(name), value})
	}
}

// Remove deletes all fields of that name.
func (h *Headers) Remove(name string) {
	kept := h.Fields[:0]
	for _, f := range h.Fields {
		if !EqualFold(f.Name, name) {
			kept = append(kept, f)
		}
	}
	h.Fields = kept
}

// EqualFold reports whether the bytes of name, lower-cased, are lower, which is in lower case.
func EqualFold(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i := range name {
		if lowerTable[name[i]] != lower[i] {
			return false
		}
	}
	return true
}

// Lower returns b in lower case (ASCII).
func Lower(b byte) byte { return lowerTable[b] }

var lowerTable = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
		if i >= 'A' && i <= 'Z' {
			t[i] = byte(i) + 'a' - 'A'
		}
	}
	return t
}()
