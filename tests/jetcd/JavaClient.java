import com.google.common.util.concurrent.ListenableFuture;
import com.google.protobuf.ByteString;
import etcdserverpb.KVGrpc;
import etcdserverpb.Kv.Compare;
import etcdserverpb.Kv.DeleteRangeRequest;
import etcdserverpb.Kv.PutRequest;
import etcdserverpb.Kv.PutResponse;
import etcdserverpb.Kv.RangeRequest;
import etcdserverpb.Kv.RangeResponse;
import etcdserverpb.Kv.RequestOp;
import etcdserverpb.Kv.TxnRequest;
import etcdserverpb.Kv.TxnResponse;
import io.grpc.CallOptions;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.internal.GrpcUtil;
import io.grpc.netty.NegotiationType;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.ClientCalls;
import io.netty.util.Version;
import java.net.URI;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;

/**
 * What jetcd's {@code Client} does against {@code http://HOST:PORT}, on the two libraries that jetcd does it with.
 *
 * <p>jetcd itself is published in a registry that the test machines do not reach. This is grpc-java with its
 * netty transport, as Debian packages them (their versions are printed), under stubs generated from our own
 * .proto files; the channel is set up as jetcd does it: plain-text HTTP/2 with prior knowledge, a round-robin
 * balancer, keep-alive pings. Bytes on the wire, flow control and the treatment of
 * statuses are therefore the real ones; jetcd's own futures, retries and value classes are not tested.
 *
 * <p>Takes the server's URL. Prints {@code test_value} as read back, one line for each check, and the count.
 */
final class JavaClient {
    private static final int CONCURRENT_PUTS = 1000;
    private static final int LARGE_BYTES = 1024 * 1024;
    private static final long DEADLINE_SECONDS = 20;

    private final ManagedChannel channel;
    private int passed;
    private int failed;

    private interface Check {
        void run() throws Exception;
    }

    private JavaClient(ManagedChannel channel) {
        this.channel = channel;
    }

    public static void main(String[] arguments) throws Exception {
        URI url = URI.create(arguments[0]);
        System.out.println(GrpcUtil.getGrpcUserAgent("netty", null) + ", "
                + Version.identify().get("netty-codec-http2"));
        ManagedChannel channel = NettyChannelBuilder.forAddress(url.getHost(), url.getPort())
                .negotiationType(NegotiationType.PLAINTEXT)
                .defaultLoadBalancingPolicy("round_robin")
                .keepAliveTime(30, TimeUnit.SECONDS)
                .keepAliveTimeout(10, TimeUnit.SECONDS)
                .keepAliveWithoutCalls(true)
                .maxInboundMessageSize(Integer.MAX_VALUE)
                .build();
        JavaClient client = new JavaClient(channel);
        try {
            client.checkAll();
        } finally {
            channel.shutdown();
            client.check("the channel shuts down", () -> expect(channel.awaitTermination(10, TimeUnit.SECONDS)));
        }
        System.out.println(client.passed + " passed, " + client.failed + " failed");
        System.exit(client.failed == 0 ? 0 : 1);
    }

    private void checkAll() {
        check("put, get, and the value comes back", this::putAndGet);
        check("a thousand puts at once on one connection", this::concurrentPuts);
        check("a megabyte there and back", this::largeValue);
        check("eight megabytes in one answer", this::largeAnswer);
        check("a transaction, both ways", this::transaction);
        check("delete", this::delete);
        check("a refusal has etcd's code and text", this::refusal);
        check("an unknown method is unimplemented", this::unimplemented);
        check("the connection still works", this::putAndGet);
    }

    private void putAndGet() {
        kv().put(put("test_key", bytes("test_value")));
        RangeResponse answer = kv().range(get("test_key"));
        expect(answer.getCount() == 1);
        String value = answer.getKvs(0).getValue().toStringUtf8();
        System.out.println(value);
        expect(value.equals("test_value"));
        expect(answer.getHeader().getRevision() > 1);
    }

    private void concurrentPuts() throws Exception {
        KVGrpc.KVFutureStub stub = KVGrpc.newFutureStub(channel).withDeadlineAfter(DEADLINE_SECONDS, TimeUnit.SECONDS);
        List<ListenableFuture<PutResponse>> answers = new ArrayList<>();
        for (int number = 0; number < CONCURRENT_PUTS; number++) {
            answers.add(stub.put(put("many/" + number, bytes("value " + number))));
        }
        Set<Long> revisions = new HashSet<>();
        for (ListenableFuture<PutResponse> answer : answers) {
            revisions.add(answer.get().getHeader().getRevision());
        }
        expect(revisions.size() == CONCURRENT_PUTS);
        RangeRequest all = get("many/").toBuilder().setRangeEnd(bytes("many0")).setCountOnly(true).build();
        expect(kv().range(all).getCount() == CONCURRENT_PUTS);
    }

    private void largeValue() {
        ByteString large = large();
        kv().put(put("large/0", large));
        expect(kv().range(get("large/0")).getKvs(0).getValue().equals(large));
    }

    private void largeAnswer() {
        for (int number = 0; number < 8; number++) {
            kv().put(put("large/" + number, large()));
        }
        RangeResponse answer = kv().range(get("large/").toBuilder().setRangeEnd(bytes("large0")).build());
        expect(answer.getKvsCount() == 8);
        expect(answer.getKvsList().stream().allMatch(found -> found.getValue().equals(large())));
    }

    private void transaction() {
        TxnRequest onceOnly = TxnRequest.newBuilder()
                .addCompare(Compare.newBuilder().setKey(bytes("once")).setTarget(Compare.CompareTarget.CREATE)
                        .setResult(Compare.CompareResult.EQUAL).setCreateRevision(0))
                .addSuccess(RequestOp.newBuilder().setRequestPut(put("once", bytes("first"))))
                .addFailure(RequestOp.newBuilder().setRequestRange(get("once")))
                .build();
        expect(kv().txn(onceOnly).getSucceeded());
        TxnResponse again = kv().txn(onceOnly);
        expect(!again.getSucceeded());
        expect(again.getResponses(0).getResponseRange().getKvs(0).getValue().equals(bytes("first")));
    }

    private void delete() {
        kv().put(put("gone", bytes("x")));
        DeleteRangeRequest request =
                DeleteRangeRequest.newBuilder().setKey(bytes("gone")).setPrevKv(true).build();
        expect(kv().deleteRange(request).getPrevKvs(0).getValue().equals(bytes("x")));
        expect(kv().deleteRange(request).getDeleted() == 0);
        expect(kv().range(get("gone")).getCount() == 0);
    }

    private void refusal() {
        Status empty = refused(() -> kv().range(get("")));
        expect(empty.getCode() == Status.Code.INVALID_ARGUMENT);
        expect("etcdserver: key is not provided".equals(empty.getDescription()));
        Status future = refused(() -> kv().range(get("a").toBuilder().setRevision(1L << 40).build()));
        expect(future.getCode() == Status.Code.OUT_OF_RANGE);
        expect("etcdserver: mvcc: required revision is a future revision".equals(future.getDescription()));
    }

    private void unimplemented() {
        MethodDescriptor<RangeRequest, RangeResponse> unknown = KVGrpc.getRangeMethod().toBuilder()
                .setFullMethodName("etcdserverpb.KV/NoSuchMethod").build();
        Status status = refused(() -> ClientCalls.blockingUnaryCall(
                channel, unknown, CallOptions.DEFAULT, get("a")));
        expect(status.getCode() == Status.Code.UNIMPLEMENTED);
    }

    private KVGrpc.KVBlockingStub kv() {
        return KVGrpc.newBlockingStub(channel).withDeadlineAfter(DEADLINE_SECONDS, TimeUnit.SECONDS);
    }

    private static ByteString bytes(String text) {
        return ByteString.copyFromUtf8(text);
    }

    private static ByteString large() {
        byte[] value = new byte[LARGE_BYTES];
        for (int position = 0; position < value.length; position++) {
            value[position] = (byte) (position * 31 + position / 256);
        }
        return ByteString.copyFrom(value);
    }

    private static PutRequest put(String key, ByteString value) {
        return PutRequest.newBuilder().setKey(bytes(key)).setValue(value).build();
    }

    private static RangeRequest get(String key) {
        return RangeRequest.newBuilder().setKey(bytes(key)).build();
    }

    private static Status refused(Runnable call) {
        try {
            call.run();
        } catch (StatusRuntimeException refusal) {
            return refusal.getStatus();
        }
        throw new IllegalStateException("not refused");
    }

    private static void expect(boolean holds) {
        if (!holds) {
            throw new IllegalStateException("not as expected");
        }
    }

    private void check(String name, Check check) {
        try {
            check.run();
            passed++;
            System.out.println("ok " + name);
        } catch (Exception failure) {
            failed++;
            System.out.println("FAIL " + name);
            failure.printStackTrace(System.out);
        }
    }
}
