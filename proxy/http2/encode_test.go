package http2

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// FuzzEncode: what the encoder writes reads back as it was, in x/net's decoder, whatever
// the table has seen before and however its size was changed.
func FuzzEncode(f *testing.F) {
	f.Add([]byte(":path\x00/\x00x\x00y\x00x\x00y\x00authorization\x00secret\x00cookie\x00a=b\x00"), uint16(100))
	f.Add(bytes.Repeat([]byte("a-long-name-of-a-field\x00and its long value, which fills the table\x00b\x00c\x00"), 100), uint16(0))
	f.Fuzz(func(t *testing.T, in []byte, size uint16) {
		var e encoder
		e.init()
		var got [][2]string
		d := hpack.NewDecoder(maxTable, func(f hpack.HeaderField) { got = append(got, [2]string{f.Name, f.Value}) })
		parts := bytes.Split(in, []byte{0})
		for round := range 3 {
			if round == 1 {
				e.resize(uint32(size))
				e.resize(uint32(size) * 2)
			}
			got = got[:0]
			var want [][2]string
			b := e.begin(nil)
			for i := 0; i+1 < len(parts); i += 2 {
				b = e.field(b, parts[i], parts[i+1])
				want = append(want, [2]string{string(parts[i]), string(parts[i+1])})
			}
			if _, err := d.Write(b); err != nil {
				t.Fatal(err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if len(got) != len(want) {
				t.Fatalf("%d fields of %d", len(got), len(want))
			}
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("%q was %q", got[i], want[i])
				}
			}
		}
	})
}

// TestTableNeverGrows: the table stays within what the peer allows, and its ring is as
// long as it needs to be for any order of fields.
func TestTableNeverGrows(t *testing.T) {
	var e encoder
	e.init()
	d := hpack.NewDecoder(maxTable, nil)
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		name := bytes.Repeat([]byte{'a' + byte(r.IntN(4))}, 1+r.IntN(300))
		value := bytes.Repeat([]byte{'a' + byte(r.IntN(26))}, r.IntN(900))
		got, err := d.DecodeFull(e.field(e.begin(nil), name, value))
		if err != nil || len(got) != 1 || got[0].Name != string(name) || got[0].Value != string(value) {
			t.Fatal(err, got)
		}
		if e.table.size > e.table.max || len(e.table.ring) > ringSize {
			t.Fatal("the table has grown")
		}
		if r.IntN(1000) == 0 {
			e.resize(uint32(r.IntN(5000)))
		}
	}
}

// FuzzDecode: any bytes make a head or an error, and a head that was accepted keeps to the
// rules that HTTP/1 will rely on.
func FuzzDecode(f *testing.F) {
	var e encoder
	e.init()
	b := e.begin(nil)
	for _, kv := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "a"}, {"cookie", "a"}, {"cookie", "b"}, {"content-length", "3"}} {
		b = e.field(b, []byte(kv[0]), []byte(kv[1]))
	}
	f.Add(b, uint8(0))
	f.Add([]byte{0x88, 0x40, 1, 'x', 1, 'y'}, uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, k uint8) {
		o := Options{}
		o.settle()
		d := newDecoder(&o)
		for range 2 {
			d.begin(kind(k % 4))
			if d.write(in) != nil {
				return
			}
			h, err := d.end()
			if err != nil {
				return
			}
			if h.broken == "" && !h.over && h.kind != nothing {
				judge(t, h)
			}
			h.free()
		}
	})
}

func judge(t *testing.T, h *head) {
	size := 0
	for _, x := range h.Fields {
		size += len(x.Name) + len(x.Value)
		if len(x.Name) == 0 || !all(x.Name, tokenByte) || !all(x.Value, valueByte) || bytes.ContainsAny(x.Value, "\r\n\x00") {
			t.Fatalf("%q: %q", x.Name, x.Value)
		}
	}
	if size > 60<<10+2*100 || len(h.Fields) > 100 {
		t.Fatalf("%d fields of %d bytes", len(h.Fields), size)
	}
	switch h.kind {
	case request:
		if len(h.method) == 0 || len(h.authority) == 0 || string(h.method) != "CONNECT" && (len(h.path) == 0 || len(h.scheme) == 0) {
			t.Fatalf("%+v", h.pseudo)
		}
		if bytes.ContainsAny(h.path, " \r\n\x00") || bytes.ContainsAny(h.authority, " \r\n\x00/") || bytes.ContainsAny(h.method, " \r\n\x00") {
			t.Fatalf("%q", h.pseudo)
		}
	case answer:
		if h.status < 100 || h.status > 999 {
			t.Fatal(h.status)
		}
	}
}
