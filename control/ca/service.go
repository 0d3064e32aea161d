package ca

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"istio.io/api/security/v1alpha1"
)

// A Service is istio.v1.auth.IstioCertificateService.
type Service struct {
	v1alpha1.UnimplementedIstioCertificateServiceServer
	authority *Authority
	callers   *Authenticator
	gate      chan struct{}
	log       *slog.Logger
	metrics   *metrics
}

// metrics have the names of the original.
type metrics struct{ asked, issued, nobody, malformed, failed prometheus.Counter }

// NewService returns the service of an authority for those whom callers knows.
func NewService(a *Authority, callers *Authenticator, registry prometheus.Registerer) *Service {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		registry.MustRegister(c)
		return c
	}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "citadel_server_root_cert_expiry_timestamp", Help: "When the certificate of the authority ends, in seconds since 1970; 0 while there is none.",
	}, func() float64 {
		if m := a.material.Load(); m != nil {
			return float64(m.Certificate.NotAfter.Unix())
		}
		return 0
	}))
	return &Service{authority: a, callers: callers, gate: make(chan struct{}, maxVerified), log: a.o.Log, metrics: &metrics{
		asked:     counter("citadel_server_csr_count", "Certificates that were asked for."),
		issued:    counter("citadel_server_success_cert_issuance_count", "Certificates that were issued."),
		nobody:    counter("citadel_server_authentication_failure_count", "Requests for certificates of callers that are not known."),
		malformed: counter("citadel_server_csr_parsing_err_count", "Requests for certificates with a CSR that is none."),
		failed:    counter("citadel_server_csr_sign_err_count", "Requests for certificates that could not be signed."),
	}}
}

// Register adds the service to a gRPC server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	v1alpha1.RegisterIstioCertificateServiceServer(r, s)
}

// CreateCertificate issues the caller's own certificate, whatever the CSR names. Who asks before
// there is an authority waits for it, so that nobody begins with a back-off.
func (s *Service) CreateCertificate(ctx context.Context, r *v1alpha1.IstioCertificateRequest) (*v1alpha1.IstioCertificateResponse, error) {
	s.metrics.asked.Inc()
	select {
	case <-s.authority.Ready():
	case <-ctx.Done():
		return nil, status.Error(codes.Unavailable, errNotReady.Error())
	}
	select {
	case s.gate <- struct{}{}:
		defer func() { <-s.gate }()
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	caller, err := s.callers.identify(ctx)
	if err != nil {
		s.metrics.nobody.Inc()
		s.log.Warn("certificate refused", "error", err)
		return nil, err
	}
	attrs := []any{"namespace", caller.Namespace, "account", caller.Name}
	if r.GetMetadata().GetFields()["ImpersonatedIdentity"].GetStringValue() != "" {
		s.metrics.nobody.Inc()
		s.log.Warn("certificate refused: it was asked for in the name of another", attrs...)
		return nil, status.Error(codes.PermissionDenied, "certificates are issued to callers themselves only")
	}
	csr, err := ParseRequest([]byte(r.GetCsr()))
	if err != nil {
		s.metrics.malformed.Inc()
		s.log.Warn("certificate refused", append(attrs, "error", err)...)
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if caller.spend != nil && !caller.spend() {
		s.metrics.nobody.Inc()
		return nil, refused(errors.New(joinUnknown))
	}
	chain, err := s.authority.issue(ctx, csr, caller.Account, seconds(r.GetValidityDuration()))
	if err != nil {
		s.metrics.failed.Inc()
		s.log.Error("certificate cannot be issued", append(attrs, "error", err)...)
		if errors.Is(err, errNotReady) {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		return nil, status.Error(codes.Internal, "the certificate cannot be signed")
	}
	s.metrics.issued.Inc()
	s.log.Debug("certificate issued", attrs...)
	return &v1alpha1.IstioCertificateResponse{CertChain: chain}, nil
}

// seconds is a time that callers write; one that is too long for a Duration is the longest.
func seconds(n int64) time.Duration {
	const most = int64(time.Duration(1<<63-1) / time.Second)
	return time.Duration(min(max(n, 0), most)) * time.Second
}
