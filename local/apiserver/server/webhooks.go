package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/util/webhook"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
)

// webhooks are reached behind their Services through the node, which stands in the pods'
// network: it takes CONNECT on its socket. Webhooks with a URL are called from here.
type webhooks struct {
	node     string // unix socket
	services corelisters.ServiceLister
}

const (
	// webhookWait is how long a webhook may take to come up: that of the mesh starts together
	// with the pods that it is called for. A controller that was refused would wait longer each time.
	webhookWait = 3 * time.Second
	// webhookStep is the pause between tries.
	webhookStep = 20 * time.Millisecond
)

// ResolveEndpoint is the address of a Service's port.
func (w webhooks) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	s, err := w.services.Services(namespace).Get(name)
	if err != nil {
		return nil, err
	}
	host := s.Spec.ClusterIP
	if host == "" || host == corev1.ClusterIPNone || s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil, fmt.Errorf("service %s/%s has no address", namespace, name)
	}
	if !slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == port }) {
		return nil, fmt.Errorf("service %s/%s has no port %d", namespace, name, port)
	}
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(int(port)))}, nil
}

// resolver has webhooks behind Services dialled through the node, without credentials of ours.
func (w webhooks) resolver(r webhook.AuthenticationInfoResolver) webhook.AuthenticationInfoResolver {
	return &webhook.AuthenticationInfoResolverDelegator{
		ClientConfigForFunc: r.ClientConfigFor,
		ClientConfigForServiceFunc: func(name, namespace string, port int) (*rest.Config, error) {
			found, err := r.ClientConfigForService(name, namespace, port)
			if err != nil {
				return nil, err
			}
			c := rest.CopyConfig(found)
			c.Dial = w.dial
			return c, nil
		},
	}
}

// dial tries until the webhook is there, for a bounded time.
func (w webhooks) dial(ctx context.Context, _, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, webhookWait)
	defer cancel()
	pause := time.NewTimer(webhookStep)
	defer pause.Stop()
	for {
		c, err := w.connect(ctx, address)
		if err == nil {
			return c, nil
		}
		pause.Reset(webhookStep)
		select {
		case <-ctx.Done():
			return nil, err
		case <-pause.C:
		}
	}
}

// connect asks the node for a connection once.
func (w webhooks) connect(ctx context.Context, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", w.node)
	if err != nil {
		return nil, fmt.Errorf("the node does not answer: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	err = tunnel(c, address)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// tunnel has the other end of a connection join it to an address. Servers of TLS speak second, so
// nothing of theirs can be behind the answer.
func tunnel(c net.Conn, address string) error {
	if _, err := fmt.Fprintf(c, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", address); err != nil {
		return err
	}
	reply, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	if reply.StatusCode == http.StatusOK {
		return nil
	}
	why, _ := io.ReadAll(io.LimitReader(reply.Body, 1<<10))
	return errors.New(strings.TrimSpace(string(why)))
}
