package listener

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"reflect"
	"testing"
)

// recordHello returns the bytes that a TLS client sends first.
func recordHello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	go func() {
		_ = tls.Client(a, cfg).Handshake() // ends when the other side closes
		_ = a.Close()
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(b, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(b, body); err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	return append(head, body...)
}

func TestClientHello(t *testing.T) {
	b := recordHello(t, &tls.Config{ServerName: "Edition.CNN.com", NextProtos: []string{"h2", "http/1.1"}})
	want := hello{"edition.cnn.com", []string{"h2", "http/1.1"}}
	t.Run("whole", func(t *testing.T) {
		if h, s := parseHello(b); s != present || !reflect.DeepEqual(h, want) {
			t.Errorf("%v %+v", s, h)
		}
	})
	t.Run("every prefix wants more", func(t *testing.T) {
		for n := range b {
			if _, s := parseHello(b[:n]); s != more {
				t.Fatalf("%d bytes: %v", n, s)
			}
		}
	})
	t.Run("in many records", func(t *testing.T) {
		var split []byte
		for rest := b[5:]; len(rest) > 0; {
			n := min(7, len(rest))
			split = append(split, 22, 3, 1, 0, byte(n))
			split, rest = append(split, rest[:n]...), rest[n:]
		}
		if h, s := parseHello(split); s != present || !reflect.DeepEqual(h, want) {
			t.Errorf("%v %+v", s, h)
		}
	})
	t.Run("no server name, no protocols", func(t *testing.T) {
		h, s := parseHello(recordHello(t, &tls.Config{InsecureSkipVerify: true}))
		if s != present || h.serverName != "" || h.protocols != nil {
			t.Errorf("%v %+v", s, h)
		}
	})
	t.Run("other protocols at once", func(t *testing.T) {
		for _, x := range []string{"GET / HTTP/1.1", "\x80\x2e\x01", "\x16\x02", "\x16\x03\x01\x00\x00", "\x16\x03\x01\xff\xff", "\x16\x03\x01\x00\x05\x02"} {
			if _, s := parseHello([]byte(x)); s != absent {
				t.Errorf("%q: %v", x, s)
			}
		}
	})
	t.Run("damaged lengths", func(t *testing.T) {
		for i := 9; i < len(b); i++ {
			d := bytes.Clone(b)
			d[i] ^= 0xff
			parseHello(d) // must not panic; the outcome is free
		}
	})
}

func TestRequestLine(t *testing.T) {
	for _, c := range []struct {
		in, want string
		sight    sight
	}{
		{"GET /a?b HTTP/1.1\r\nhost: x\r\n", "http/1.1", present},
		{"GET / HTTP/1.0\n", "http/1.0", present},
		{preface, "h2c", present},
		{preface[:9], "", more},
		{"GET /a", "", more},
		{"", "", more},
		{"GET / HTTP/2.0\r\n", "", absent},
		{"GET /\r\n", "", absent},
		{"\x16\x03\x01", "", absent},
		{"GET /\x00", "", absent},
		{" GET", "", absent},
	} {
		if got, s := parseRequestLine([]byte(c.in)); got != c.want || s != c.sight {
			t.Errorf("%q: %q %v", c.in, got, s)
		}
	}
}

func TestProxyHeader(t *testing.T) {
	v2 := signatureV2 + "\x21\x11\x00\x0c\x0a\x00\x00\x01\x0a\x00\x00\x02\x10\x00\x00\x50"
	for _, c := range []struct {
		in       string
		size     int
		from, to string
		sight    sight
	}{
		{"PROXY TCP4 192.0.2.1 10.0.0.1 4000 80\r\nrest", 39, "192.0.2.1:4000", "10.0.0.1:80", present},
		{"PROXY TCP6 2001:db8::1 ::1 4000 80\r\n", 36, "[2001:db8::1]:4000", "[::1]:80", present},
		{"PROXY UNKNOWN\r\n", 15, "", "", present},
		{v2 + "rest", 28, "10.0.0.1:4096", "10.0.0.2:80", present},
		{signatureV2 + "\x20\x00\x00\x00", 16, "", "", present},
		{v2[:20], 28, "", "", more},
		{"PROX", 0, "", "", more},
		{"GET /", 0, "", "", absent},
		{"PROXY TCP4 192.0.2.1 ::1 4000 80\r\n", 0, "", "", absent},
		{"PROXY TCP4 192.0.2.1 10.0.0.1 4000 70000\r\n", 0, "", "", absent},
		{signatureV2 + "\x11\x11\x00\x0c", 0, "", "", absent},
		{signatureV2 + "\x21\x11\xff\xff", 65551, "", "", more},
	} {
		h, s := parseProxyHeader([]byte(c.in))
		if s != c.sight || h.size != c.size || text(h.from) != c.from || text(h.to) != c.to {
			t.Errorf("%q: %v %+v", c.in, s, h)
		}
	}
}

func text(a interface {
	IsValid() bool
	String() string
}) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func FuzzClientHello(f *testing.F) {
	f.Add(recordHello(f, &tls.Config{ServerName: "a.test", NextProtos: []string{"h2"}}))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Add([]byte(preface))
	f.Add([]byte("PROXY TCP4 192.0.2.1 10.0.0.1 4000 80\r\n"))
	f.Add([]byte(signatureV2 + "\x21\x11\x00\x0c\x0a\x00\x00\x01\x0a\x00\x00\x02\x10\x00\x00\x50"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, s := parseHello(b)
		if s != present && (h.serverName != "" || h.protocols != nil) {
			t.Errorf("%v with %+v", s, h)
		}
		// A decision does not change when more bytes arrive.
		if s != more {
			if h2, s2 := parseHello(append(bytes.Clone(b), 0)); s2 != s || !reflect.DeepEqual(h, h2) {
				t.Errorf("%v then %v", s, s2)
			}
		}
		if p, s := parseRequestLine(b); (s == present) != (p != "") {
			t.Errorf("%q %v", p, s)
		}
		if p, s := parseProxyHeader(b); s == present && (p.size <= 0 || p.size > len(b)) {
			t.Errorf("%+v %v", p, s)
		}
	})
}
