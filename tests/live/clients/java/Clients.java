// JDBC as frameworks use it: one scenario by name, twenty connections at once, and a failure is the exit code.
//
// Statements are prepared from their first execution (prepareThreshold=1), so every answer depends on a name that the
// driver has chosen and that other connections have chosen too.

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

public class Clients {
    static final int CLIENTS = 20;
    static final Map<String, Scenario> SCENARIOS = new TreeMap<>();

    interface Scenario { void run() throws Exception; }
    interface Work { void run(Connection connection, int number) throws Exception; }
    interface Call { void run() throws Exception; }

    static {
        SCENARIOS.put("own values in each connection", Statements::ownValues);
        SCENARIOS.put("transactions and their end", Statements::transactions);
        SCENARIOS.put("batches", Statements::batches);
        SCENARIOS.put("rewritten batches", Statements::rewrittenBatches);
        SCENARIOS.put("rows in parts", Statements::fetchSize);
        SCENARIOS.put("autosave", Statements::autosave);
        SCENARIOS.put("a column added", Statements::columnAdded);
        SCENARIOS.put("deallocate and discard", Statements::deallocate);
        SCENARIOS.put("settings", Sessions::settings);
        SCENARIOS.put("schemas", Sessions::schemas);
        SCENARIOS.put("listening", Sessions::listening);
        SCENARIOS.put("copy", Sessions::copy);
        SCENARIOS.put("cancelling", Sessions::cancelling);
        SCENARIOS.put("temporary tables and locks", Sessions::temporary);
        SCENARIOS.put("types and keys", Sessions::types);
    }

    public static void main(String[] names) throws Exception {
        try {
            SCENARIOS.get(names[0]).run();
            System.exit(0);
        } catch (Throwable error) {
            error.printStackTrace();
            System.exit(1); // the other nineteen may wait for each other for ever
        }
    }

    // Helpers.

    static Connection connect(String options) throws SQLException {
        String place = System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        String url = "jdbc:postgresql://" + place + "?prepareThreshold=1&loginTimeout=20&socketTimeout=40" + options;
        return DriverManager.getConnection(url, System.getenv("PGUSER"), System.getenv("PGPASSWORD"));
    }

    static void together(String options, Work work) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(CLIENTS);
        CyclicBarrier start = new CyclicBarrier(CLIENTS);
        List<Future<?>> all = new ArrayList<>();
        for (int each = 0; each < CLIENTS; each++) {
            int number = each;
            all.add(threads.submit(() -> {
                try (Connection connection = connect(options)) {
                    start.await();
                    work.run(connection, number);
                }
                return null;
            }));
        }
        for (Future<?> one : all) one.get();
    }

    static void run(Connection connection, String text) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(text);
        }
    }

    static Object value(Connection connection, String text, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(text)) {
            return value(statement, values);
        }
    }

    static Object value(PreparedStatement statement, Object... values) throws SQLException {
        for (int n = 0; n < values.length; n++) statement.setObject(n + 1, values[n]);
        try (ResultSet rows = statement.executeQuery()) {
            rows.next();
            return rows.getObject(1);
        }
    }

    static void same(Object expected, Object found) {
        if (!String.valueOf(expected).equals(String.valueOf(found)))
            throw new AssertionError("expected " + expected + ", found " + found);
    }

    static SQLException fails(String state, Call call) throws Exception {
        try {
            call.run();
        } catch (SQLException error) {
            if (state.equals(error.getSQLState())) return error;
            throw error;
        }
        throw new AssertionError("no error " + state);
    }
}
