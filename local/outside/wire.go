package outside

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	maxRequest = 512             // bytes of a request without DNS message
	maxPacket  = 65535 + 64      // with one
	cancelled  = unix.ECANCELED  // whoever asked has given up
	crossed    = unix.EXDEV      // the address is inside the mesh
	unknown    = unix.EOPNOTSUPP // a request that is not understood
	exhausted  = unix.EAGAIN     // too many requests at once
	expired    = unix.ETIMEDOUT  // of a dial
	lost       = syscall.EPIPE   // the other half is gone
	anything   = unix.EIO        // an error without errno
	missing    = unix.ENOENT     // the pod publishes no such port
)

// A request is one packet, read.
type request struct {
	verb    string         // dial, listen, query, cancel, inside
	network string         // tcp, udp
	to      netip.AddrPort // of dial
	port    uint16         // of listen
	message []byte         // of query
}

// String is the request as it is sent.
func (r request) String() string {
	switch r.verb {
	case "dial":
		return r.verb + " " + r.network + " " + r.to.String()
	case "listen":
		return r.verb + " " + r.network + " " + strconv.Itoa(int(r.port))
	case "query":
		return r.verb + " " + r.network + " " + string(r.message)
	}
	return r.verb
}

var errRequest = errors.New("not understood")

// parseRequest reads a request without its number.
func parseRequest(packet []byte) (request, error) {
	verb, rest, _ := strings.Cut(string(packet[:min(len(packet), maxRequest)]), " ")
	r := request{verb: verb}
	if verb == "inside" || verb == "cancel" {
		if len(packet) != len(verb) {
			return request{}, errRequest
		}
		return r, nil
	}
	network, argument, found := strings.Cut(rest, " ")
	if !found || network != "tcp" && network != "udp" {
		return request{}, errRequest
	}
	r.network = network
	if verb == "query" {
		r.message = packet[len("query tcp "):]
		return r, nil
	}
	if len(packet) > maxRequest {
		return request{}, errRequest
	}
	var err error
	switch verb {
	case "dial":
		r.to, err = netip.ParseAddrPort(argument)
		if r.to.Addr().Zone() != "" || r.to.Port() == 0 {
			return request{}, errRequest
		}
		r.to = netip.AddrPortFrom(r.to.Addr().Unmap(), r.to.Port())
	case "listen":
		r.port, err = parsePort(argument)
	default:
		err = errRequest
	}
	if err != nil {
		return request{}, errRequest
	}
	return r, nil
}

func parsePort(s string) (uint16, error) {
	port, err := strconv.ParseUint(s, 10, 16)
	if err == nil && port == 0 {
		err = errRequest
	}
	return uint16(port), err
}

// A reply is one packet with what came along.
type reply struct {
	text    []byte // after "ok "
	file    *os.File
	failure error
}

// parseReply reads a reply without its number; the file is the reply's.
func parseReply(packet []byte, file *os.File) reply {
	if string(packet) == "ok" {
		return reply{file: file}
	}
	if text, ok := strings.CutPrefix(string(packet), "ok "); ok {
		return reply{text: []byte(text), file: file}
	}
	if file != nil {
		_ = file.Close()
	}
	failed, ok := strings.CutPrefix(string(packet), "err ")
	number, text, _ := strings.Cut(failed, " ")
	errno, err := strconv.ParseUint(number, 10, 12)
	if !ok || err != nil {
		return reply{failure: fmt.Errorf("answer: %w", errRequest)}
	}
	return reply{failure: &Error{syscall.Errno(errno), text}}
}

// An Error is a request that failed on the other side. It unwraps to the errno.
type Error struct {
	Errno syscall.Errno
	Text  string
}

// Error is the text of the side where it failed, or that of the errno.
func (e *Error) Error() string {
	if e.Text == "" {
		return e.Errno.Error()
	}
	return e.Text
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// failure is the reply for an error.
func failure(err error) []byte {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	return fmt.Appendf(nil, "err %d %s", errno(err), text[:min(len(text), maxRequest)])
}

// errno is the number that says best what went wrong.
func errno(err error) syscall.Errno {
	var timeout net.Error
	if n, ok := errors.AsType[syscall.Errno](err); ok {
		return n
	}
	switch {
	case errors.Is(err, context.Canceled):
		return cancelled
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return expired
	case errors.Is(err, errRequest):
		return unknown
	case errors.Is(err, net.ErrClosed):
		return lost
	}
	return anything
}

// send writes a packet with a descriptor (nil: none). The descriptor stays open here.
func send(c *net.UnixConn, packet []byte, from syscall.Conn) error {
	if from == nil {
		_, err := c.Write(packet)
		return err
	}
	raw, err := from.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		_, _, failed = c.WriteMsgUnix(packet, unix.UnixRights(int(fd)), nil)
	}); err != nil {
		return err
	}
	return failed
}

// receive reads a packet with what came along. Descriptors beyond the first are closed.
func receive(c *net.UnixConn, buf []byte) ([]byte, *os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, nil, err
	}
	file := attached(oob[:oobn])
	if n == 0 && oobn == 0 { // the end of a packet socket
		return nil, nil, net.ErrClosed
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		if file != nil {
			_ = file.Close()
		}
		return nil, nil, fmt.Errorf("packet of more than %d bytes", len(buf))
	}
	return buf[:n], file, nil
}

func attached(oob []byte) *os.File {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var file *os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if file == nil {
				file = os.NewFile(uintptr(fd), "outside")
				continue
			}
			_ = unix.Close(fd)
		}
	}
	return file
}
