package transport

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// A tally counts the writes on a socket.
type tally struct {
	net.Conn
	writes atomic.Int64
}

func (c *tally) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// tlsPair is a client whose writes are counted, and its server.
func tlsPair(t *testing.T) (client, server Conn, count *tally) {
	t.Helper()
	ca := newAuthority(t, "ca")
	s, c := serverSocket(t, downstream(ca.issue(t, time.Hour, "a"), nil)), clientSocket(t, upstreamTLS(nil, nil))
	rawC, rawS := sockets(t)
	accepted := make(chan error, 1)
	go func() {
		var err error
		server, err = s.Accept(t.Context(), rawS, nil)
		accepted <- err
	}()
	count = &tally{Conn: rawC}
	client, err := c.Connect(t.Context(), count, Target{})
	if err := errors.Join(err, <-accepted); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(client.Reset(), server.Reset()) })
	return client, server, count
}

// TestRecordsTogether: what is written at once leaves with few system calls, and what came
// together is read together.
func TestRecordsTogether(t *testing.T) {
	text := bytes.Repeat([]byte("0123456789abcdef"), 4<<10) // 64 KiB, four records
	for name, write := range map[string]func(Conn) error{
		"Write": func(c Conn) error { _, err := c.Write(text); return err },
		"WriteBuffers": func(c Conn) error {
			_, err := c.WriteBuffers(&net.Buffers{text[:100], text[100:50_000], text[50_000:]})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, server, count := tlsPair(t)
			before := count.writes.Load()
			if err := errors.Join(write(client), client.CloseWrite()); err != nil {
				t.Fatal(err)
			}
			if n := count.writes.Load() - before; n > 3 { // the last is close_notify
				t.Errorf("%d writes", n)
			}
			got, reads := []byte(nil), 0
			for buf := make([]byte, 2*len(text)); ; reads++ {
				n, err := server.Read(buf)
				if got = append(got, buf[:n]...); errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, text) {
				t.Errorf("%d bytes came, or others than were sent", len(got))
			}
			if reads > 5 {
				t.Errorf("%d reads", reads)
			}
			if err := server.WaitReadable(); err != nil || !server.Ended() {
				t.Errorf("after the end: %v, ended %v", err, server.Ended())
			}
		})
	}
}

// TestRecordsWhole: records of any length come out as they went in, none of them together with
// the beginning of the next, however the network cuts them and however much is asked for.
func TestRecordsWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	lengths := []int{0, 1, 100, recordBuffer - 1, recordBuffer, 5000, maxPlain, maxPlain + 256}
	for range 50 {
		var sent [][]byte
		for length := 0; len(sent) < 40; {
			if r.IntN(3) == 0 { // most are as long as the one before
				length = lengths[r.IntN(len(lengths))]
			}
			record := append([]byte{23, 3, 3, byte(length >> 8), byte(length)}, bytes.Repeat([]byte{byte(len(sent))}, length)...)
			sent = append(sent, record)
		}
		from, to := sockets(t)
		cuts := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
		go func() {
			for all := bytes.Join(sent, nil); len(all) > 0; {
				n := min(len(all), 1+cuts.IntN(3*maxPlain))
				if _, err := from.Write(all[:n]); err != nil {
					return
				}
				all = all[n:]
			}
			_ = from.Close()
		}()
		compareRecords(t, newRecords(to, nil), sent)
	}
}

func compareRecords(t *testing.T, s *records, sent [][]byte) {
	t.Helper()
	sizes := rand.New(rand.NewPCG(3, 4))
	for i, record := range sent {
		var got []byte
		for len(got) < len(record) {
			p := make([]byte, 1+sizes.IntN(2*maxPlain))
			n, err := s.Read(p)
			if err != nil {
				t.Fatalf("record %d after %d of %d bytes: %v", i, len(got), len(record), err)
			}
			got = append(got, p[:n]...)
		}
		if !bytes.Equal(got, record) {
			t.Fatalf("record %d of %d bytes came out as %d bytes, or as others", i, len(record), len(got))
		}
	}
	if n, err := s.Read(make([]byte, maxPlain)); n != 0 || !errors.Is(err, io.EOF) {
		t.Fatalf("at the end: %d bytes, %v", n, err)
	}
	if s.buf != nil || !s.empty() {
		t.Error("a buffer is held at the end")
	}
}

// TestEndByAlert: who has read the end of a stream does not wait for what comes behind it,
// though the peer leaves the socket open.
func TestEndByAlert(t *testing.T) {
	client, server, _ := tlsPair(t) // a tally has no CloseWrite of its own
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := server.Read(make([]byte, 10)); n != 0 || !errors.Is(err, io.EOF) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if err := server.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := server.WaitReadable(); err != nil || !server.Ended() {
		t.Errorf("%v, ended %v", err, server.Ended())
	}
}

// TestTornRecords: a write that was cut off by its deadline leaves no half of a record before
// another one.
func TestTornRecords(t *testing.T) {
	client, server, _ := tlsPair(t)
	if err := client.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var err error
	for err == nil {
		_, err = client.Write(make([]byte, 1<<20))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if err := client.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("more")); err == nil {
		t.Error("a stream that is cut off is written to")
	}
	if err := client.Close(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, struct{ io.Reader }{server}); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the peer finds more than a cut: %v", err)
	}
}

// TestCloseDuringWrite: who closes does not wait for a peer that does not read.
func TestCloseDuringWrite(t *testing.T) {
	client, _, _ := tlsPair(t)
	wrote, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			if _, err := client.Write(make([]byte, 40<<10)); err != nil {
				ended <- err
				return
			}
			wrote <- struct{}{}
		}
	}()
	for blocked := false; !blocked; {
		select {
		case <-wrote:
		case <-time.After(50 * time.Millisecond):
			blocked = true
		}
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	for {
		select {
		case <-wrote: // it was slow, not blocked
			continue
		case err := <-ended:
			if !errors.Is(err, net.ErrClosed) { // else by the deadline of close_notify
				t.Error(err)
			}
		}
		return
	}
}
