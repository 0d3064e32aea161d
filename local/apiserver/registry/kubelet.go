package registry

import (
	"context"
	"net"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/kubelet/client"
)

// kubeletAt is the one kubelet, on a unix socket.
type kubeletAt struct{ info client.ConnectionInfo }

// KubeletAt returns the way to the kubelet that serves its HTTP interface (/exec,
// /attach, /containerLogs, /portForward) on the unix socket at path. Every node
// name leads there: there is one node.
func KubeletAt(path string) client.ConnectionInfoGetter {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     time.Minute,
	}
	return kubeletAt{client.ConnectionInfo{
		Scheme: "http", Hostname: "kubelet", Port: "80",
		Transport: transport, InsecureSkipTLSVerifyTransport: transport,
	}}
}

func (k kubeletAt) GetConnectionInfo(context.Context, types.NodeName) (*client.ConnectionInfo, error) {
	info := k.info
	return &info, nil
}
