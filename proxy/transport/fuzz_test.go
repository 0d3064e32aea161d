package transport

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"
)

// A feed is a socket that is only read.
type feed struct {
	net.Conn
	io.Reader
}

func (f *feed) Read(p []byte) (int, error) { return f.Reader.Read(p) }

// FuzzRecords: the bytes of a connection come out as they went in, however they arrive
// and whatever was read ahead, never beyond the end of a record at once, and nothing is
// left behind.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("\x16\x03\x01\x00\x02ab\x17\x03\x03\x00\x00\x17\x03\x03\x00\x01c"), uint8(3), uint8(4))
	f.Add(bytes.Repeat([]byte("\x17\x03\x03\x40\x00"), 3), uint8(0), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, ahead, piece uint8) {
		n := min(int(ahead), len(in))
		socket := &feed{Reader: iotest.HalfReader(bytes.NewReader(in[n:]))}
		s := newRecords(socket, bytes.Clone(in[:n]))
		var got []byte
		buf := make([]byte, int(piece)+1)
		for {
			n, err := s.Read(buf)
			got = append(got, buf[:n]...)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || n == 0 {
				t.Fatalf("%q: %d bytes, %v", in, n, err)
			}
		}
		if !bytes.Equal(got, in) {
			t.Fatalf("%q came out as %q", in, got)
		}
		if s.buf != nil || s.r != s.w {
			t.Fatal("a buffer is held at the end")
		}
	})
}

// FuzzNames: the names of a certificate are read from whatever its extension holds.
func FuzzNames(f *testing.F) {
	f.Add([]byte("\x30\x0c\x82\x03a.b\x86\x05x://y"))
	f.Add([]byte("\x30\x06\x87\x04\x01\x02\x03\x04"))
	f.Fuzz(func(t *testing.T, in []byte) {
		leaf := &x509.Certificate{Extensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: in}}}
		if n := len(names(leaf)); n > len(in) {
			t.Fatalf("%d names in %d bytes", n, len(in))
		}
	})
}
