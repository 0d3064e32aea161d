package kubelet

import (
	"net"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestListens(t *testing.T) {
	four, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer four.Close()
	six, err := net.Listen("tcp", ":0") // a socket of IPv6, where there is IPv6
	if err != nil {
		t.Fatal(err)
	}
	defer six.Close()
	port := func(l net.Listener) uint16 { return l.Addr().(*net.TCPAddr).AddrPort().Port() }
	conn, err := net.Dial("tcp4", four.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, c := range []struct {
		name  string
		ports []uint16
		want  bool
	}{
		{"listeners of both families", []uint16{port(four), port(six)}, true},
		{"the near end of a connection is none", []uint16{conn.LocalAddr().(*net.TCPAddr).AddrPort().Port()}, false},
		{"one of two is missing", []uint16{port(four), 1}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := listens(os.Getpid(), c.ports); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	t.Run("a process that is not there", func(t *testing.T) {
		if listens(-1, []uint16{port(four)}) {
			t.Error("it listens")
		}
	})
}

func TestAwaitedPorts(t *testing.T) {
	c := &corev1.Container{Ports: []corev1.ContainerPort{{ContainerPort: 9080}, {ContainerPort: 53, Protocol: corev1.ProtocolUDP}}}
	if got := awaitedPorts(c); len(got) != 1 || got[0] != 9080 {
		t.Errorf("got %v, want 9080 alone", got)
	}
	c.ReadinessProbe = &corev1.Probe{}
	if got := awaitedPorts(c); got != nil {
		t.Errorf("with a probe of its own: got %v, want none", got)
	}
}
