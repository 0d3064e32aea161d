package transport

import (
	"context"
	"os"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// lookEvery is how often the files of a secret are looked at.
const lookEvery = time.Second

// followFiles keeps e at what the files are that its secret names, until ctx ends. What
// cannot be read, or does not fit together yet, leaves the secret as it is.
func (e *secret) followFiles(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		v := e.value.Load()
		if v == nil || !changed(v.files, filesOf(v.source)) {
			continue
		}
		if next, err := compileSecret(v.source); err == nil {
			e.value.CompareAndSwap(v, next) // unless the server has said another thing meanwhile
		}
	}
}

// filesOf are the files that a secret is read from, as they are now.
func filesOf(pb *tlsv3.Secret) (files []os.FileInfo) {
	sources := []*corev3.DataSource{pb.GetTlsCertificate().GetCertificateChain(), pb.GetTlsCertificate().GetPrivateKey(),
		pb.GetTlsCertificate().GetOcspStaple(), pb.GetValidationContext().GetTrustedCa(), pb.GetValidationContext().GetCrl()}
	for _, s := range append(sources, pb.GetSessionTicketKeys().GetKeys()...) {
		if s.GetFilename() == "" {
			continue
		}
		if st, err := os.Stat(s.GetFilename()); err == nil {
			files = append(files, st)
		}
	}
	return files
}

// changed compares by identity, time and size: files are replaced by renaming.
func changed(before, now []os.FileInfo) bool {
	if len(before) != len(now) {
		return true
	}
	for i := range now {
		if !os.SameFile(before[i], now[i]) || !before[i].ModTime().Equal(now[i].ModTime()) || before[i].Size() != now[i].Size() {
			return true
		}
	}
	return false
}
