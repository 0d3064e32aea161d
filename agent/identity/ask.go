package identity

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"istio.io/api/security/v1alpha1"
)

// ask sends a CSR, over a connection of its own: there is one a day.
func (k *Keeper) ask(ctx context.Context, csr []byte) ([]string, error) {
	c, err := k.o.Dial(ctx)
	if err != nil {
		return nil, err
	}
	once := make(chan net.Conn, 1)
	once <- c
	conn, err := grpc.NewClient("passthrough:///"+k.o.Authority,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // Dial has secured it
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errors.New("the connection is over")
			}
		}),
		grpc.WithAuthority(k.o.Authority), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)), grpc.WithDisableServiceConfig(), grpc.WithNoProxy())
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	defer c.Close() // also where nobody has dialled
	defer conn.Close()
	token, err := k.o.Token()
	if err != nil {
		return nil, err
	}
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	answer, err := v1alpha1.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, &v1alpha1.IstioCertificateRequest{
		Csr: string(csr), ValidityDuration: int64(k.o.Life.Seconds()),
	})
	if err != nil {
		return nil, err
	}
	return answer.GetCertChain(), nil
}
