import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.TopicNameExtractor;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.apache.kafka.streams.state.Stores;
import org.rocksdb.Options;

/**
 * A delay service as a Kafka Streams application: what a good Java engineer writes in an afternoon.
 *
 * <p>One processor, one RocksDB store whose keys are in due order, a punctuation by wall clock; deliveries keep
 * key, value and headers, go to the topic that the request names, and are exactly once. It knows delays and times, and
 * nothing else: no ids, no commands, no receipts, no refusals.
 *
 * <p>Arguments: bootstrap servers, application id, request topic, state directory, threads, commit interval ms,
 * punctuation interval ms.
 */
public final class DelayStreams {
    static final String STORE = "wheel";
    static final String DESTINATION = "delaystream-destination";
    static final String AT = "delaystream-at";
    static final String DELAY = "delaystream-delay";

    /** Fires of one punctuation: between two of them the thread reads requests and commits. */
    static final int FIRES_AT_ONCE = 10_000;

    /** A value on its way out, with its topic. */
    record Delivery(String topic, byte[] value) {}

    static final class Delays implements Processor<byte[], byte[], byte[], Delivery> {
        private final Duration interval;
        private ProcessorContext<byte[], Delivery> context;
        private KeyValueStore<Bytes, byte[]> store;
        /** No entry is before this key: a scan that begins here does not pass the tombstones of what was fired. */
        private Bytes from = new Bytes(new byte[0]);
        /** The due time of the first entry, or earlier, ms. */
        private long earliest;

        Delays(Duration interval) {
            this.interval = interval;
        }

        @Override
        public void init(ProcessorContext<byte[], Delivery> context) {
            this.context = context;
            store = context.getStateStore(STORE);
            context.schedule(interval, PunctuationType.WALL_CLOCK_TIME, this::fire);
        }

        @Override
        public void process(Record<byte[], byte[]> request) {
            String destination = null;
            long due = request.timestamp();
            RecordHeaders kept = new RecordHeaders();
            for (Header header : request.headers()) {
                switch (header.key()) {
                    case DESTINATION -> destination = text(header);
                    case AT -> due = Long.parseLong(text(header));
                    case DELAY -> due = request.timestamp() + milliseconds(text(header));
                    default -> kept.add(header);
                }
            }
            if (destination == null) {
                return;
            }
            // What waits for its turn goes first.
            if (due <= context.currentSystemTimeMs() && earliest > due) {
                context.forward(new Record<>(request.key(), new Delivery(destination, request.value()), due, kept));
                return;
            }
            RecordMetadata source = context.recordMetadata().orElseThrow();
            Bytes key = key(due, source.offset());
            store.put(key, encoded(destination, request.key(), request.value(), kept));
            earliest = Math.min(earliest, due);
            if (key.compareTo(from) < 0) {
                from = key;
            }
        }

        private void fire(long now) {
            if (earliest > now) {
                return;
            }
            List<Bytes> fired = new ArrayList<>();
            earliest = Long.MAX_VALUE;
            try (KeyValueIterator<Bytes, byte[]> entries = store.range(from, null)) {
                while (entries.hasNext()) {
                    KeyValue<Bytes, byte[]> entry = entries.next();
                    long due = ByteBuffer.wrap(entry.key.get()).getLong();
                    if (due > now || fired.size() == FIRES_AT_ONCE) {
                        earliest = due;
                        break;
                    }
                    context.forward(decoded(entry.value, due));
                    fired.add(entry.key);
                }
            }
            for (Bytes key : fired) {
                store.delete(key);
                from = key;
            }
        }

        private static String text(Header header) {
            return new String(header.value(), StandardCharsets.UTF_8);
        }

        /** Of what the load sends: milliseconds with their unit. */
        private static long milliseconds(String delay) {
            return Long.parseLong(delay, 0, delay.length() - 2, 10);
        }

        private static Bytes key(long due, long offset) {
            return new Bytes(ByteBuffer.allocate(16).putLong(due).putLong(offset).array());
        }

        private static byte[] encoded(String destination, byte[] key, byte[] value, Headers headers) {
            Header[] all = headers.toArray();
            byte[] topic = destination.getBytes(StandardCharsets.UTF_8);
            byte[][] names = new byte[all.length][];
            int size = 4 + topic.length + 4 + length(key) + 4 + length(value) + 4;
            for (int i = 0; i < all.length; i++) {
                names[i] = all[i].key().getBytes(StandardCharsets.UTF_8);
                size += 4 + names[i].length + 4 + length(all[i].value());
            }
            ByteBuffer out = ByteBuffer.allocate(size);
            put(out, topic);
            put(out, key);
            put(out, value);
            out.putInt(all.length);
            for (int i = 0; i < all.length; i++) {
                put(out, names[i]);
                put(out, all[i].value());
            }
            return out.array();
        }

        private static Record<byte[], Delivery> decoded(byte[] entry, long due) {
            ByteBuffer in = ByteBuffer.wrap(entry);
            String topic = new String(take(in), StandardCharsets.UTF_8);
            byte[] key = take(in);
            byte[] value = take(in);
            RecordHeaders headers = new RecordHeaders();
            for (int left = in.getInt(); left > 0; left--) {
                headers.add(new String(take(in), StandardCharsets.UTF_8), take(in));
            }
            return new Record<>(key, new Delivery(topic, value), due, headers);
        }

        private static int length(byte[] bytes) {
            return bytes == null ? 0 : bytes.length;
        }

        private static void put(ByteBuffer out, byte[] bytes) {
            out.putInt(bytes == null ? -1 : bytes.length);
            if (bytes != null) {
                out.put(bytes);
            }
        }

        private static byte[] take(ByteBuffer in) {
            int size = in.getInt();
            if (size < 0) {
                return null;
            }
            byte[] bytes = new byte[size];
            in.get(bytes);
            return bytes;
        }
    }

    /** Larger write buffers, and two threads for compaction: the store is written more than it is read. */
    public static final class Writes implements RocksDBConfigSetter {
        @Override
        public void setConfig(String store, Options options, Map<String, Object> configs) {
            options.setWriteBufferSize(32 << 20);
            options.setMaxBackgroundJobs(2);
        }

        @Override
        public void close(String store, Options options) {}
    }

    public static void main(String[] arguments) throws InterruptedException {
        String bootstrap = arguments[0];
        String application = arguments[1];
        String requests = arguments[2];
        Duration interval = Duration.ofMillis(Long.parseLong(arguments[6]));

        Topology topology = new Topology();
        topology.addSource("requests", requests);
        topology.addProcessor("delays", () -> new Delays(interval), "requests");
        topology.addStateStore(
                Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(STORE), Serdes.Bytes(), Serdes.ByteArray())
                        .withLoggingEnabled(new HashMap<>())
                        .withCachingDisabled(),
                "delays");
        TopicNameExtractor<byte[], Delivery> byRequest = (key, delivery, context) -> delivery.topic();
        Serializer<Delivery> value = (topic, delivery) -> delivery.value();
        topology.addSink("destinations", byRequest, new ByteArraySerializer(), value, "delays");

        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[3]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, arguments[4]);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, arguments[5]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        settings.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, Writes.class);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 4_000);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 4 << 20);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 128L << 20);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.TRANSACTION_TIMEOUT_CONFIG), 60_000);

        CountDownLatch ended = new CountDownLatch(1);
        KafkaStreams streams = new KafkaStreams(topology, settings);
        streams.setUncaughtExceptionHandler(failure -> {
            failure.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.setStateListener((state, before) -> {
            System.out.println(state);
            if (state == KafkaStreams.State.ERROR || state == KafkaStreams.State.NOT_RUNNING) {
                ended.countDown();
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(20))));
        streams.start();
        ended.await();
    }
}
