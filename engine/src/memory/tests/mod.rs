mod lifecycle;
mod pool;
mod stress;
mod table;
