package names

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// askTimeout is how long one server has.
const askTimeout = 2 * time.Second

var errOther = errors.New("not the answer to the question")

// socketOf is one of the server's that ask, by what a question shows of it.
type socketOf struct {
	network string
	port    uint16
}

// forward asks the servers, one after the other, and has their answer as it is. from is the
// port that the question came from.
func (s *Server) forward(ctx context.Context, network string, question []byte, from uint16) []byte {
	s.forwarded.Add(1)
	head, q := parse(question)
	if q == nil {
		return failure(head, nil, dnsmessage.RCodeFormatError)
	}
	if _, ours := s.own.Load(socketOf{network, from}); ours {
		s.failed.Add(1)
		s.log.Error("a question came back: the redirection of the pod does not leave the agent's sockets out", "name", q.Name.String())
		return failure(head, q, dnsmessage.RCodeServerFailure)
	}
	var err error
	for _, server := range s.o.Servers {
		var answer []byte
		if answer, err = s.ask(ctx, network, server, question, *q); err == nil {
			return answer
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	s.failed.Add(1)
	s.log.Debug("no server answers", "name", q.Name.String(), "error", err)
	return failure(head, q, dnsmessage.RCodeServerFailure)
}

// parse is the header and the only question of a message; nil if there is not exactly one.
func parse(message []byte) (dnsmessage.Header, *dnsmessage.Question) {
	var p dnsmessage.Parser
	head, err := p.Start(message)
	if err != nil {
		return head, nil
	}
	all, err := p.AllQuestions()
	if err != nil || len(all) != 1 {
		return head, nil
	}
	return head, &all[0]
}

func (s *Server) ask(ctx context.Context, network string, server netip.AddrPort, question []byte, q dnsmessage.Question) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	d := net.Dialer{Control: s.o.Control}
	c, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if local, err := netip.ParseAddrPort(c.LocalAddr().String()); err == nil {
		key := socketOf{network, local.Port()}
		s.own.Store(key, true)
		defer s.own.Delete(key)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if network == "tcp" {
		if err := writeFramed(c, question); err != nil {
			return nil, err
		}
		answer, err := readFramed(c)
		if err == nil && !answers(answer, question, q) {
			err = errOther
		}
		return answer, err
	}
	if _, err := c.Write(question); err != nil {
		return nil, err
	}
	buf := make([]byte, maxDatagram)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if answers(buf[:n], question, q) {
			return buf[:n], nil
		}
	}
}

// answers reports whether a message is the answer to a question, and not a forged one.
func answers(message, question []byte, q dnsmessage.Question) bool {
	head, echoed := parse(message)
	return head.Response && len(question) >= 2 && head.ID == binary.BigEndian.Uint16(question) &&
		echoed != nil && echoed.Type == q.Type && echoed.Class == q.Class && equalFold(echoed.Name, q.Name)
}

// equalFold compares names without regard to the case of ASCII letters.
func equalFold(a, b dnsmessage.Name) bool {
	if a.Length != b.Length {
		return false
	}
	lower := func(c byte) byte {
		if 'A' <= c && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}
	for i := range a.Length {
		if lower(a.Data[i]) != lower(b.Data[i]) {
			return false
		}
	}
	return true
}

// readFramed reads a message behind its length, as TCP has it.
func readFramed(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, message)
	return message, err
}

func writeFramed(w io.Writer, message []byte) error {
	out := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(message)), uint16(min(len(message), tcpSize)))
	_, err := w.Write(append(out, message[:min(len(message), tcpSize)]...))
	return err
}
