import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The ceiling with Kafka's Java clients: a plain loop that copies records inside transactions of up to 8,000.
 *
 * <p>Arguments: bootstrap servers, source topic, target topic, number of records. The last line of output is JSON.
 */
public final class Copy {
    private static final int TRANSACTION = 8_000;

    public static void main(String[] arguments) {
        String source = arguments[1];
        String target = arguments[2];
        long count = Long.parseLong(arguments[3]);

        Properties reading = new Properties();
        reading.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        reading.put(ConsumerConfig.GROUP_ID_CONFIG, "java-copy-" + target);
        reading.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        reading.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        reading.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
        reading.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, TRANSACTION);
        reading.put(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG, 4 << 20);
        Properties writing = new Properties();
        writing.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        writing.put(ProducerConfig.TRANSACTIONAL_ID_CONFIG, "java-copy-" + target);
        writing.put(ProducerConfig.BATCH_SIZE_CONFIG, 256 << 10);
        writing.put(ProducerConfig.BUFFER_MEMORY_CONFIG, 128L << 20);

        try (KafkaConsumer<byte[], byte[]> consumer =
                        new KafkaConsumer<>(reading, new ByteArrayDeserializer(), new ByteArrayDeserializer());
                KafkaProducer<byte[], byte[]> producer =
                        new KafkaProducer<>(writing, new ByteArraySerializer(), new ByteArraySerializer())) {
            producer.initTransactions();
            consumer.subscribe(List.of(source));
            ConsumerRecords<byte[], byte[]> batch = consumer.poll(Duration.ofSeconds(1));
            while (batch.isEmpty()) {
                batch = consumer.poll(Duration.ofSeconds(1));
            }
            long started = System.nanoTime();
            long copied = 0;
            while (true) {
                if (!batch.isEmpty()) {
                    producer.beginTransaction();
                    for (ConsumerRecord<byte[], byte[]> record : batch) {
                        producer.send(new ProducerRecord<>(
                                target, record.partition(), record.key(), record.value(), record.headers()));
                    }
                    Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>(batch.nextOffsets());
                    producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                    producer.commitTransaction();
                    copied += batch.count();
                }
                if (copied >= count) {
                    break;
                }
                batch = consumer.poll(Duration.ofSeconds(1));
            }
            double seconds = (System.nanoTime() - started) / 1e9;
            System.out.printf("{\"records\": %d, \"seconds\": %.3f, \"per_second\": %.1f}%n",
                    copied, seconds, copied / seconds);
        }
    }
}
